//! `[fees]`: what a host charges on top of its prices, such as a platform's share of each top-up.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use toml::Spanned;

use super::ConfigError;
use super::file::{Source, check_host, decimal};

/// Percent by host, as written.
pub(super) type RawFees = BTreeMap<Spanned<String>, Spanned<IgnoredAny>>;

/// Basis points by host. Percents are read from the text: money never passes through a float.
pub(super) fn check_fees(
    raw: RawFees,
    source: &Source<'_>,
) -> Result<BTreeMap<String, u32>, ConfigError> {
    raw.into_iter()
        .map(|(host, percent)| {
            let text = source.at(percent.span());
            let basis_points = decimal(text, PERCENT_DIGITS)
                .and_then(|points| u32::try_from(points).ok())
                .filter(|points| *points <= BASIS_POINTS_MAX)
                .ok_or_else(|| {
                    let message = format!(
                        "expected a fee in percent from 0 to 100 with at most two decimals, such \
                         as 5.5, found {text}"
                    );
                    source.invalid(percent.span(), message)
                })?;
            let name = check_host(host.span(), host.get_ref(), source)?;
            Ok((name, basis_points))
        })
        .collect()
}

/// Decimals of a basis point in percent.
const PERCENT_DIGITS: usize = 2;
const BASIS_POINTS_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    #[test]
    fn fees_are_percents_by_host() {
        let parse = |text: &str| {
            Config::parse(text, Path::new("weir.toml")).map_err(|error| error.to_string())
        };
        let config = parse("[fees]\n\"OpenRouter.ai\" = 5.5\n\"a.example\" = 0.25\n").unwrap();
        let fees: Vec<_> = config.fees.into_iter().collect();
        assert_eq!(
            fees,
            [
                ("a.example".to_owned(), 25),
                ("openrouter.ai".to_owned(), 550)
            ]
        );
        for (text, expected) in [
            (
                "[fees]\n\"a.example\" = 5.555",
                "weir.toml:2:15: expected a fee in percent",
            ),
            (
                "[fees]\n\"a.example\" = -1",
                "weir.toml:2:15: expected a fee in percent",
            ),
            (
                "[fees]\n\"https://a\" = 1",
                "weir.toml:2:1: expected a host name",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
