//! The rates of a price, by the kind of token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::decimal::Rate;

/// Dollars per million tokens, by the kind of token: each kind once, in their order.
///
/// A price has three or four of them, and a list has hundreds of prices: as slices, they take a third
/// of what trees do, whose nodes have room for eleven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Kind, Rate>", into = "BTreeMap<Kind, Rate>")]
pub(super) struct PerMtok(Box<[(Kind, Rate)]>);

impl PerMtok {
    pub(super) fn get(&self, kind: Kind) -> Option<&Rate> {
        self.iter()
            .find_map(|(own, rate)| (own == kind).then_some(rate))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Kind, &Rate)> {
        self.0.iter().map(|(kind, rate)| (*kind, rate))
    }
}

/// Of two rates of one kind, the later counts.
impl FromIterator<(Kind, Rate)> for PerMtok {
    fn from_iter<I: IntoIterator<Item = (Kind, Rate)>>(rates: I) -> Self {
        BTreeMap::from_iter(rates).into()
    }
}

impl From<BTreeMap<Kind, Rate>> for PerMtok {
    fn from(rates: BTreeMap<Kind, Rate>) -> Self {
        Self(rates.into_iter().collect())
    }
}

impl From<PerMtok> for BTreeMap<Kind, Rate> {
    fn from(rates: PerMtok) -> Self {
        rates.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_there_once_in_its_order_with_the_rate_that_came_last() {
        let rates: PerMtok =
            serde_json::from_str(r#"{"output":2,"input":1,"output":3,"cache_read":0.1}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&rates).unwrap(),
            r#"{"input":1,"output":3,"cache_read":0.1}"#
        );
        assert_eq!(rates.get(Kind::Output), Some(&Rate::Flat(3_000_000)));
        assert_eq!(rates.get(Kind::CacheWrite), None);
    }
}
