//! `weir prices check`: calls in the ledger that have no price.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use jiff::tz::TimeZone;
use serde::Serialize;
use weir_core::pricing::{Context, PriceTable};

use crate::cli::{Places, print_json};
use crate::ledger::{LedgerOptions, open_read_only};
use crate::process::prices::PriceFiles;
use crate::report::Since;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// From when on: 90m, 24h, 7d, 4w, or a day such as 2026-11-01.
    #[arg(long, value_name = "WHEN", default_value = "30d")]
    since: Since,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Calls of one model at one host that have no price.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Unpriced {
    provider: String,
    host: String,
    model_requested: Option<String>,
    model_answered: Option<String>,
    calls: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    /// The tables have a price now: calls from now on have one.
    priced_now: bool,
    /// A model with a price whose name is near.
    near: Option<String>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let config = arguments.places.config()?;
    let state = arguments.places.find_state()?;
    let table = PriceFiles::of(state.path()).table(&config);
    let now = jiff::Timestamp::now();
    let since_ms = arguments.since.unix_ms(now, &TimeZone::system())?;
    let ledger = LedgerOptions {
        state_dir: state.path().to_owned(),
        url: config.ledger.url.clone(),
        password_file: config.ledger.password_file.clone(),
    };
    let connection = open_read_only(&ledger, since_ms)?.0;
    let found = unpriced(&connection, since_ms, &table, now.as_second())?;
    if arguments.json {
        print_json(&serde_json::json!({ "unpriced": found }), out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        writeln!(out, "every call with usage has a price")?;
    }
    for group in &found {
        out.write_all(describe(group).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn unpriced(
    connection: &rusqlite::Connection,
    since_ms: i64,
    table: &PriceTable,
    now_unix: i64,
) -> rusqlite::Result<Vec<Unpriced>> {
    let mut statement = connection.prepare(UNPRICED)?;
    let groups = statement.query_map([since_ms], |row| {
        let count = |column| {
            row.get(column)
                .map(|count: i64| u64::try_from(count).unwrap_or(0))
        };
        Ok(Unpriced {
            provider: row.get("provider")?,
            host: row.get("host")?,
            model_requested: row.get("model_requested")?,
            model_answered: row.get("model_answered")?,
            calls: count("calls")?,
            prompt_tokens: count("prompt_tokens")?,
            output_tokens: count("output_tokens")?,
            priced_now: false,
            near: None,
        })
    })?;
    let groups = groups.map(|group| {
        let mut group = group?;
        let (provider, near) = (group.provider.clone(), &mut group.near);
        let names = [&group.model_answered, &group.model_requested];
        for model in names.into_iter().flatten() {
            let context = Context {
                provider: &provider,
                model,
                at_unix: now_unix,
                ..Context::default()
            };
            group.priced_now |= table.quote(&context).is_some();
            if near.is_none() {
                let nearest = table.nearest(&provider, model);
                *near = nearest.map(|(provider, model)| format!("{provider}/{model}"));
            }
        }
        Ok(group)
    });
    groups.collect()
}

fn describe(group: &Unpriced) -> String {
    let name = |model: &Option<String>| model.clone().unwrap_or_else(|| "?".to_owned());
    let mut text = format!(
        "{} at {} (answered as {}): {} calls, {} prompt and {} output tokens\n",
        name(&group.model_requested),
        group.host,
        name(&group.model_answered),
        group.calls,
        group.prompt_tokens,
        group.output_tokens
    );
    if group.priced_now {
        text.push_str("  has a price now: calls from now on are priced\n");
        return text;
    }
    if let Some(near) = &group.near {
        text.push_str(&format!("  near in name: {near}\n"));
    }
    let model = group
        .model_answered
        .as_ref()
        .or(group.model_requested.as_ref());
    let model = model.map_or("*", String::as_str);
    text.push_str(&format!(
        "  to give it a price, import a list that has it, or configure one:\n    [[price]]\n    \
         provider = {:?}\n    model = {model:?}\n    usd_per_mtok = {{ input = 0.00, output = 0.00 }}\n",
        group.provider
    ));
    text
}

/// The most expensive to know nothing of first; a bound on what is shown.
const UNPRICED: &str = "
    SELECT provider, host, model_requested, model_answered, count(*) AS calls,
        sum(input + cache_read + cache_write + cache_write_long) AS prompt_tokens,
        sum(output) AS output_tokens
    FROM exchange WHERE started_ms >= ? AND cost_state = 'unpriced' AND input IS NOT NULL
    GROUP BY provider, host, model_requested, model_answered
    ORDER BY prompt_tokens + output_tokens DESC LIMIT 1000";
