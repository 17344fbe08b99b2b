//! `weir prices show MODEL`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::json;
use weir_core::pricing::{Context, Entry, Kind, Negotiated, PriceTable, Shown};

use crate::cli::{Places, in_thousands, print_json};
use crate::process::prices::PriceFiles;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// The model, in any spelling: claude-opus-5-5, us.anthropic.claude-opus-5-5-v1:0, an ARN.
    model: String,
    /// Only what this provider asks, such as anthropic, aws or vertex.
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// The prices of this day instead of today, such as 2026-12-01.
    #[arg(long, value_name = "DAY")]
    at: Option<jiff::civil::Date>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let config = arguments.places.config()?;
    let table = PriceFiles::of(arguments.places.find_state()?.path()).table(&config);
    let at = match arguments.at {
        // At noon the hours of a day that cost more are over everywhere.
        Some(day) => day.at(12, 0, 0, 0).to_zoned(TimeZone::UTC)?.timestamp(),
        None => jiff::Timestamp::now(),
    };
    let context = Context {
        provider: arguments.provider.as_deref().unwrap_or_default(),
        model: &arguments.model,
        at_unix: at.as_second(),
        ..Context::default()
    };
    let shown = table.show(&context);
    let negotiated = negotiated(&table, &context, &shown);
    if arguments.json {
        let body = json!({ "at": at.to_string(), "models": shown, "negotiated": negotiated });
        print_json(&body, out)?;
    } else {
        for model in &shown {
            out.write_all(describe(model).as_bytes())?;
        }
        if shown
            .iter()
            .flat_map(|model| &model.prices)
            .any(|entry| !entry.in_force)
        {
            writeln!(
                out,
                "- not in force at {}",
                at.strftime("%Y-%m-%d %H:%M UTC")
            )?;
        }
        for (provider, text) in &negotiated {
            writeln!(out, "negotiated for {provider}: {text}")?;
        }
    }
    if shown.is_empty() && negotiated.is_empty() {
        let near = table.nearest(context.provider, context.model);
        let hint = near.map_or_else(
            || "see `weir prices import --help`".to_owned(),
            |(provider, model)| format!("did you mean {model} of {provider}?"),
        );
        bail!(
            "expected a model that has a price, found none for {}: {hint}",
            arguments.model
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What a call costs at each provider where the configuration has a price of its own for it.
fn negotiated(table: &PriceTable, context: &Context<'_>, shown: &[Shown]) -> Vec<(String, String)> {
    let mut providers: Vec<&str> = shown.iter().map(|model| model.provider.as_str()).collect();
    if !context.provider.is_empty() {
        providers.push(context.provider);
    }
    let configured = table
        .negotiated()
        .filter_map(|price| price.provider.as_deref());
    providers.extend(configured.filter(|_| context.provider.is_empty()));
    providers.sort_unstable();
    providers.dedup();
    let effective = providers.into_iter().filter_map(|provider| {
        let quote = table.quote(&Context {
            provider,
            ..*context
        })?;
        let price = quote.negotiated()?;
        let rates = quote.rates(0)?;
        let usd = |kind| {
            let micros = rates.per_token(kind)?;
            Some(format!(
                "{} {}",
                kind.as_str(),
                decimal(micros, rates.factor_ppm())
            ))
        };
        let all = [Kind::Input, Kind::Output, Kind::CacheRead, Kind::CacheWrite];
        let rates = all
            .into_iter()
            .filter_map(usd)
            .collect::<Vec<_>>()
            .join("  ");
        Some((provider.to_owned(), format!("{rates}{}", until(price))))
    });
    effective.collect()
}

fn until(price: &Negotiated) -> String {
    let day = |unix: Option<i64>| {
        let at = jiff::Timestamp::from_second(unix?).ok()?;
        Some(at.to_zoned(TimeZone::UTC).date())
    };
    let from = day(price.from_unix).map(|day| format!("  from {day}"));
    let until = day(price.until_unix).map(|day| format!("  until {day}"));
    format!("{}{}", from.unwrap_or_default(), until.unwrap_or_default())
}

/// Dollars per million tokens: pico-dollars times a factor, rounded up to a millionth.
fn decimal(picos: u64, factor_ppm: u64) -> String {
    let micros = u128::from(picos)
        .saturating_mul(u128::from(factor_ppm))
        .div_ceil(1_000_000);
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn describe(model: &Shown) -> String {
    let mut text = format!("{} of {}, list {}", model.model, model.provider, model.list);
    if model.overridden {
        text.push_str(" (not used: a list above has the model)");
    }
    if model.list_price_of_maker {
        text.push_str(" (the maker's list price: this provider has none)");
    }
    text.push('\n');
    let limits = [
        ("context", model.context_window),
        ("answer", model.max_output_tokens),
        ("cached from", model.min_cacheable_tokens),
    ];
    let limits = limits.iter().filter_map(|(name, tokens)| {
        let tokens = in_thousands(&(*tokens)?.to_string());
        Some(format!("{name} {tokens} tokens"))
    });
    let limits = limits.collect::<Vec<_>>().join(", ");
    if !limits.is_empty() {
        text.push_str(&format!("  {limits}\n"));
    }
    text.push_str(
        "  USD per million tokens (searches and requests: per thousand), over N: of longer prompts\n",
    );
    for entry in &model.prices {
        text.push_str(&line(entry));
    }
    text
}

fn line(entry: &Entry) -> String {
    let mark = if entry.in_force { ' ' } else { '-' };
    let from = entry.from.as_ref().map(|day| format!(" from {day}"));
    let hours = entry.hours.as_ref().map(|hours| format!(" {hours}"));
    let mut text = format!(
        "  {mark} {}{}{}",
        entry.what,
        from.unwrap_or_default(),
        hours.unwrap_or_default()
    );
    let mut width = text.chars().count();
    for steps in entry.rates.chunk_by(|step, next| step.kind == next.kind) {
        let mut rate = String::new();
        for (at, step) in steps.iter().enumerate() {
            rate.push_str(&match at {
                0 => format!("  {} {}", step.kind, step.usd),
                _ => format!(" (over {}: {})", step.above_prompt_tokens, step.usd),
            });
        }
        if width + rate.len() > LINE_COLUMNS {
            text.push_str("\n      ");
            width = 6;
        }
        width += rate.len();
        text.push_str(&rate);
    }
    text.push('\n');
    text
}

/// Rates that go beyond have a line of their own.
const LINE_COLUMNS: usize = 96;
