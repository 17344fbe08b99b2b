//! The FinOps Foundation's cost and usage format (FOCUS 1.2) as CSV: a row for each hour, key,
//! route, model and what is charged for.
//!
//! The ledger has the cost of a call and the part of it that is the prompt's. That part is split
//! among uncached, read and written tokens in proportion to their list prices, and the rest among
//! output, searches, citations and requests, so that the rows of a call add up to what the ledger
//! says it cost. Columns that begin with `x_` are not of the
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
    WebSearch,
    FileSearch,
    Citation,
    /// What is charged for a call as such.
    Request,
    /// What can't be told apart: calls that broke off, or whose model has no price.
    Call,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amounts {
    /// In the unit of the meter.
    quantity: u64,
    cost: Money,
    by_list: Money,
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
        total.quantity = total.quantity.saturating_add(amounts.quantity);
        total.cost += amounts.cost;
        total.by_list += amounts.by_list;
        total.avoided += amounts.avoided;
    }
}

/// The cost of a call, by what it is for.
fn split(exchange: &Exchange) -> Vec<(Meter, Amounts)> {
    let usage = exchange.usage.unwrap_or_default();
    let cost = exchange.cost.unwrap_or(Money::ZERO);
    let by_list = exchange.cost_by_list.unwrap_or(cost);
    let Some(of_input) = exchange.cost_of_input.filter(|_| exchange.usage.is_some()) else {
        let amounts = Amounts {
            quantity: usage.tokens(),
            cost,
            by_list,
            avoided: Money::ZERO,
        };
        return vec![(Meter::Call, amounts)];
    };
    let (prompt, others) = parts(exchange, &usage);
    let costs = shares(of_input, &prompt)
        .into_iter()
        .chain(shares(cost - of_input, &others));
    let all = [&prompt[..], &others[..]].concat();
    let saved = exchange.cost_without_cache.unwrap_or(cost) - cost;
    let rows = all.iter().zip(costs).zip(shares(by_list, &all));
    let rows = rows.map(|((part, cost), by_list)| {
        let is_read = part.meter == Meter::CacheRead;
        let amounts = Amounts {
            quantity: part.quantity,
            cost,
            by_list,
            avoided: if is_read { saved } else { Money::ZERO },
        };
        (part.meter, amounts)
    });
    let is_empty = |amounts: &Amounts| {
        let moneys = [amounts.cost, amounts.by_list, amounts.avoided];
        amounts.quantity == 0 && moneys == [Money::ZERO; 3]
    };
    rows.filter(|(_, amounts)| !is_empty(amounts)).collect()
}

/// A part of a call, with what it costs by list.
#[derive(Clone, Copy)]
struct Part {
    meter: Meter,
    quantity: u64,
    weight: Money,
}

/// The parts of the prompt, and the others.
fn parts(exchange: &Exchange, usage: &Usage) -> ([Part; 3], [Part; 5]) {
    let context = Context {
        provider: &exchange.provider,
        model: &exchange.model,
        at_unix: exchange.started_ms.div_euclid(1000),
        ..Context::default()
    };
    let cost = PriceTable::builtin().price(&context, usage);
    let cost = cost.unwrap_or_default();
    let part = |meter, quantity, weight| Part {
        meter,
        quantity,
        weight,
    };
    let written = usage.cache_write.saturating_add(usage.cache_write_long);
    let requests = u64::from(cost.request > Money::ZERO);
    let prompt = [
        part(Meter::Input, usage.input, cost.input),
        part(Meter::CacheRead, usage.cache_read, cost.cache_read),
        part(Meter::CacheWrite, written, cost.cache_write),
    ];
    let others = [
        part(Meter::Output, usage.output, cost.output),
        part(Meter::WebSearch, usage.web_searches, cost.web_searches),
        part(Meter::FileSearch, usage.file_searches, cost.file_searches),
        part(Meter::Citation, usage.citation, cost.citations),
        part(Meter::Request, requests, cost.request),
    ];
    (prompt, others)
}

/// What each part has of an amount, in proportion to its list price; the dearest takes what rounding
/// leaves, the first where none has a price.
fn shares(amount: Money, parts: &[Part]) -> Vec<Money> {
    let nanos = |part: &Part| i128::from(part.weight.nanos());
    let all: i128 = parts.iter().map(nanos).sum();
    let share = |part: &Part| {
        let product = i128::from(amount.nanos()) * nanos(part);
        let share = product.checked_div(all).unwrap_or(0);
        Money::from_nanos(i64::try_from(share).unwrap_or(0))
    };
    let mut shares: Vec<Money> = parts.iter().map(share).collect();
    let left = amount - shares.iter().copied().sum();
    let places = 0..parts.len();
    let dearest = places.rev().max_by_key(|at| parts.get(*at).map(nanos));
    if let Some(dearest) = dearest.and_then(|at| shares.get_mut(at)) {
        *dearest += left;
    }
    shares
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
            format!("{} {}", self.model, self.meter.described()),
            "Usage-Based".to_owned(),
            time(&end),
            time(&start),
            amounts.quantity.to_string(),
            self.meter.unit().to_owned(),
            cost.clone(),
            cost,
            self.host.clone(),
            exact(amounts.by_list),
            amounts.quantity.to_string(),
            self.meter.unit().to_owned(),
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
            Self::WebSearch => "web_search",
            Self::FileSearch => "file_search",
            Self::Citation => "citation",
            Self::Request => "request",
            Self::Call => "all",
        }
    }

    /// In words.
    const fn described(self) -> &'static str {
        match self {
            Self::Input => "input tokens",
            Self::CacheRead => "cache_read tokens",
            Self::CacheWrite => "cache_write tokens",
            Self::Output => "output tokens",
            Self::WebSearch => "web searches",
            Self::FileSearch => "file searches",
            Self::Citation => "citation tokens",
            Self::Request => "requests",
            Self::Call => "all tokens",
        }
    }

    /// What is counted.
    const fn unit(self) -> &'static str {
        match self {
            Self::WebSearch | Self::FileSearch => "Searches",
            Self::Request => "Requests",
            Self::Input
            | Self::CacheRead
            | Self::CacheWrite
            | Self::Output
            | Self::Citation
            | Self::Call => "Tokens",
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
