//! The FinOps Foundation's cost and usage format (FOCUS 1.2) as CSV: a row for each hour, key,
//! route, model and kind of token.
//!
//! The ledger has the cost of a call and the part of it that is the prompt's. That part is split
//! among uncached, read and written tokens in proportion to their list prices, so that the rows of
//! a call add up to what the ledger says it cost. Columns that begin with `x_` are not of the
//! standard; `x_CostBasis` says whether a cost follows from the usage that the provider told.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Unit};
use weir_core::money::Money;
use weir_core::pricing::{Context, PriceTable};
use weir_core::usage::Usage;

use super::query::{GroupKey, Query};
use super::reader::{Exchange, Reader};
use super::show::quoted;

/// What rows of one kind of charge have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Charge {
    hour_ms: i64,
    /// Hash and end of the key that pays.
    account: String,
    host: String,
    provider: String,
    model: String,
    tags: Vec<String>,
    meter: Meter,
    basis: String,
}

/// What is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Meter {
    Input,
    CacheRead,
    CacheWrite,
    Output,
    /// What can't be told apart: calls that broke off, or whose model has no price.
    Call,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amounts {
    tokens: u64,
    cost: Money,
    avoided: Money,
}

/// All calls that the query wants, as FOCUS rows. What it groups by becomes tags.
pub(super) fn export(reader: &Reader, query: &Query) -> anyhow::Result<String> {
    let by: Vec<GroupKey> = [GroupKey::Key]
        .into_iter()
        .chain(query.by.clone())
        .collect();
    let query = Query {
        by,
        ..query.clone()
    };
    let mut charges = HashMap::<Charge, Amounts>::new();
    reader.each_exchange(&query, |exchange| {
        if !exchange.is_refused() {
            add(&mut charges, &exchange);
        }
    })?;
    let mut rows: Vec<_> = charges.into_iter().collect();
    rows.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut text = COLUMNS.join(",") + "\r\n";
    for (charge, amounts) in &rows {
        let values = charge.values(amounts, &query)?;
        let values: Vec<String> = values.iter().map(|value| quoted(Some(value))).collect();
        write!(text, "{}\r\n", values.join(","))?;
    }
    Ok(text)
}

fn add(charges: &mut HashMap<Charge, Amounts>, exchange: &Exchange) {
    let mut groups = exchange.group.iter().cloned();
    let of = Charge {
        hour_ms: exchange.started_ms - exchange.started_ms.rem_euclid(HOUR_MS),
        account: groups.next().unwrap_or_default(),
        host: exchange.host.clone(),
        provider: exchange.provider.clone(),
        model: exchange.model.clone(),
        tags: groups.collect(),
        meter: Meter::Call,
        basis: exchange.cost_state.clone(),
    };
    for (meter, amounts) in split(exchange) {
        let total = charges
            .entry(Charge {
                meter,
                ..of.clone()
            })
            .or_default();
        total.tokens = total.tokens.saturating_add(amounts.tokens);
        total.cost += amounts.cost;
        total.avoided += amounts.avoided;
    }
}

/// The cost of a call, by what it is for.
fn split(exchange: &Exchange) -> Vec<(Meter, Amounts)> {
    let usage = exchange.usage.unwrap_or_default();
    let cost = exchange.cost.unwrap_or(Money::ZERO);
    let written = usage.cache_write.saturating_add(usage.cache_write_long);
    let tokens = [
        (Meter::Input, usage.input),
        (Meter::CacheRead, usage.cache_read),
        (Meter::CacheWrite, written),
    ];
    let Some(of_input) = exchange.cost_of_input.filter(|_| exchange.usage.is_some()) else {
        let amounts = Amounts {
            tokens: usage.tokens(),
            cost,
            avoided: Money::ZERO,
        };
        return vec![(Meter::Call, amounts)];
    };
    let weights = list_prices(exchange, &usage);
    let all: i128 = weights
        .iter()
        .map(|weight| i128::from(weight.nanos()))
        .sum();
    let saved = exchange.cost_without_cache.unwrap_or(cost) - cost;
    let mut left = of_input;
    let mut rows = Vec::new();
    for ((meter, tokens), weight) in tokens.into_iter().zip(weights).rev() {
        let share = i128::from(of_input.nanos()) * i128::from(weight.nanos());
        let share = share.checked_div(all).unwrap_or(0);
        // The first kind takes what rounding leaves.
        let cost = match meter {
            Meter::Input => left,
            _ => Money::from_nanos(i64::try_from(share).unwrap_or(0)),
        };
        left = left - cost;
        let avoided = if meter == Meter::CacheRead {
            saved
        } else {
            Money::ZERO
        };
        rows.push((
            meter,
            Amounts {
                tokens,
                cost,
                avoided,
            },
        ));
    }
    let output = Amounts {
        tokens: usage.output,
        cost: cost - of_input,
        avoided: Money::ZERO,
    };
    rows.push((Meter::Output, output));
    let is_empty = |amounts: &Amounts| amounts.tokens == 0 && amounts.cost == Money::ZERO;
    rows.retain(|(_, amounts)| !is_empty(amounts) || amounts.avoided != Money::ZERO);
    rows
}

/// What uncached, read and written tokens cost by list.
fn list_prices(exchange: &Exchange, usage: &Usage) -> [Money; 3] {
    let context = Context {
        provider: &exchange.provider,
        model: &exchange.model,
        at_unix: exchange.started_ms.div_euclid(1000),
        ..Context::default()
    };
    let priced = PriceTable::builtin().price(&context, usage);
    priced.map_or([Money::from_nanos(1), Money::ZERO, Money::ZERO], |cost| {
        [cost.input, cost.cache_read, cost.cache_write]
    })
}

impl Charge {
    fn values(&self, amounts: &Amounts, query: &Query) -> anyhow::Result<Vec<String>> {
        let start = Timestamp::from_millisecond(self.hour_ms)?.to_zoned(TimeZone::UTC);
        let month = start.date().first_of_month().to_zoned(TimeZone::UTC)?;
        let time = |at: &jiff::Zoned| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let next_month = month.checked_add(1.month())?;
        let end = start.round(Unit::Hour)?.checked_add(1.hour())?;
        let cost = exact(amounts.cost);
        let keys = query.by.iter().skip(1).map(|key| key.as_str());
        let tags: BTreeMap<_, _> = keys.zip(&self.tags).collect();
        let meter = self.meter.as_str();
        Ok(vec![
            cost.clone(),
            self.account.clone(),
            self.account.clone(),
            "USD".to_owned(),
            time(&next_month),
            time(&month),
            "Usage".to_owned(),
            String::new(),
            format!("{} {meter} tokens", self.model),
            "Usage-Based".to_owned(),
            time(&end),
            time(&start),
            amounts.tokens.to_string(),
            "Tokens".to_owned(),
            cost.clone(),
            cost.clone(),
            self.host.clone(),
            cost,
            amounts.tokens.to_string(),
            "Tokens".to_owned(),
            self.host.clone(),
            self.provider.clone(),
            self.model.clone(),
            "AI and Machine Learning".to_owned(),
            self.provider.clone(),
            format!("{}/{}/{meter}", self.provider, self.model),
            meter.to_owned(),
            serde_json::to_string(&tags)?,
            exact(amounts.avoided),
            self.basis.clone(),
        ])
    }
}

impl Meter {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite => "cache_write",
            Self::Output => "output",
            Self::Call => "all",
        }
    }
}

fn exact(amount: Money) -> String {
    amount.to_string().replace('$', "")
}

const HOUR_MS: i64 = 3_600_000;

/// In the order of [`Charge::values`].
const COLUMNS: [&str; 30] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuMeter",
    "Tags",
    "x_AvoidedCost",
    "x_CostBasis",
];
