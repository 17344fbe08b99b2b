//! `weir prices` as it is typed, against a state directory of its own.

use std::path::Path;

use clap::Parser as _;
use serde_json::Value;
use weir_core::usage::Usage;

use crate::cli::{Command, Line};
use crate::ledger::{Cost, Ledger, LedgerOptions, Outcome, Record};

const LITELLM: &str = r#"{
  "claude-opus-9": {"litellm_provider": "anthropic", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05},
  "claude-opus-5": {"litellm_provider": "anthropic", "input_cost_per_token": 6e-06, "output_cost_per_token": 2.5e-05}
}"#;

/// What the command prints.
fn weir(state: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let state = state.to_str().unwrap();
    let config = format!("{state}/weir.toml");
    let mut line = vec!["weir", "prices"];
    line.extend(arguments);
    line.extend(["--state-dir", state, "--config", &config]);
    let Command::Prices(arguments) = Line::try_parse_from(line)?.command else {
        panic!("another command");
    };
    let mut out = Vec::new();
    super::run(&arguments, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn state(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    std::fs::write(dir.path().join("weir.toml"), config).unwrap();
    std::fs::write(dir.path().join("prices.json"), LITELLM).unwrap();
    dir
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_model_is_shown_with_every_price_and_when_it_holds() {
    let dir = state("");
    let text = weir(
        dir.path(),
        &["show", "gemini-4-argon", "--at", "2026-11-30"],
    )
    .unwrap();
    assert!(
        text.contains("gemini-4-argon of google, list 2026-11-22"),
        "{text}"
    );
    assert!(text.contains("    standard  input 2  output 10"), "{text}");
    assert!(
        text.contains("  - standard from 2026-12-01  input 4  output 20"),
        "{text}"
    );
    let text = weir(
        dir.path(),
        &["show", "gemini-4-argon", "--at", "2026-12-01"],
    )
    .unwrap();
    assert!(text.contains("  - standard  input 2"), "{text}");
    let text = weir(dir.path(), &["show", "deepseek-flash"]).unwrap();
    assert!(text.contains("01:00-04:00 UTC, Mon-Fri"), "{text}");
    let text = weir(dir.path(), &["show", "gpt-6-astra", "--provider", "openai"]).unwrap();
    assert!(text.contains("input 10 (over 272000: 20)"), "{text}");
    assert!(text.contains("regional host  factor 1.1"), "{text}");
    let all = json(&weir(dir.path(), &["show", "claude-opus-5-5", "--json"]).unwrap());
    let providers: Vec<&str> = all["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["provider"].as_str().unwrap())
        .collect();
    assert_eq!(providers, ["anthropic", "aws", "google"]);
    let error = weir(dir.path(), &["show", "claude-opus-5-6"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean claude-opus-5"), "{error}");
}

#[test]
fn an_imported_list_holds_until_it_is_taken_back() {
    let dir = state("");
    let file = dir.path().join("prices.json");
    let file = file.to_str().unwrap();
    let dry = json(&weir(dir.path(), &["import", file, "--dry-run", "--json"]).unwrap());
    assert_eq!(
        (&dry["new"][0], &dry["written"]),
        (&"anthropic/claude-opus-9".into(), &Value::Null)
    );
    assert!(weir(dir.path(), &["show", "claude-opus-9"]).is_err());
    let said = weir(dir.path(), &["import", file]).unwrap();
    assert!(
        said.contains("2 models with a price in a file of litellm"),
        "{said}"
    );
    assert!(
        said.contains("anthropic/claude-opus-5: 5 25 0.5 6.25 -> 6 25"),
        "{said}"
    );
    let shown = weir(dir.path(), &["show", "claude-opus-9"]).unwrap();
    assert!(shown.contains("list litellm 2"), "{shown}");
    let both = json(
        &weir(
            dir.path(),
            &["show", "claude-opus-5", "--provider", "anthropic", "--json"],
        )
        .unwrap(),
    );
    assert_eq!(both["models"][0]["overridden"], false);
    assert_eq!(both["models"][1]["overridden"], true);
    let again = json(&weir(dir.path(), &["import", file, "--only-new", "--json"]).unwrap());
    assert_eq!(
        again["kept"], 1,
        "the import before is replaced, not compared with"
    );
    weir(dir.path(), &["import", "--remove", "litellm"]).unwrap();
    assert!(weir(dir.path(), &["show", "claude-opus-9"]).is_err());
    let own = dir.path().join("own.json");
    weir(
        dir.path(),
        &["import", file, "--output", own.to_str().unwrap()],
    )
    .unwrap();
    let said = weir(dir.path(), &["import", own.to_str().unwrap()]).unwrap();
    assert!(said.contains("file of weir"), "{said}");
}

#[test]
fn negotiated_prices_are_shown_as_they_are_charged() {
    let dir = state(
        "[[price]]\nprovider = \"anthropic\"\nmodel = \"claude-opus-*\"\ndiscount_percent = 15\n\
         [[price]]\nprovider = \"openrouter\"\nmodel = \"own-model\"\nusd_per_mtok = { input = 1.5, output = 2 }\n",
    );
    let text = weir(dir.path(), &["show", "claude-opus-5-5"]).unwrap();
    assert!(
        text.contains("negotiated for anthropic: input 3.4  output 17  cache_read 0.17"),
        "{text}"
    );
    let text = weir(dir.path(), &["show", "own-model"]).unwrap();
    assert!(
        text.contains("negotiated for openrouter: input 1.5  output 2"),
        "{text}"
    );
}

#[test]
fn calls_without_a_price_are_named_with_what_would_help() {
    let dir = state("");
    let options = LedgerOptions::new(dir.path());
    let ledger = Ledger::open(&options).unwrap();
    let record = |id: &str, model: &str, cost| Record {
        id: id.to_owned(),
        started_unix_ms: jiff::Timestamp::now().as_millisecond(),
        provider: "anthropic".to_owned(),
        host: "api.anthropic.com".to_owned(),
        api: "messages".to_owned(),
        model_requested: Some(model.to_owned()),
        outcome: Outcome::Completed,
        usage: Some(Usage {
            input: 100,
            cache_read: 20,
            output: 7,
            ..Usage::default()
        }),
        cost,
        ..Record::default()
    };
    for (id, model) in [
        ("1", "claude-opus-5-9"),
        ("2", "claude-opus-5-9"),
        ("3", "claude-opus-9"),
    ] {
        ledger.record(record(id, model, Cost::Unpriced));
    }
    ledger.record(record("4", "claude-opus-5", Cost::default()));
    assert!(ledger.flush(std::time::Duration::from_secs(10)));
    let file = dir.path().join("prices.json");
    weir(dir.path(), &["import", file.to_str().unwrap()]).unwrap();
    let found = json(&weir(dir.path(), &["check", "--json"]).unwrap());
    let groups = found["unpriced"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{found}");
    assert_eq!(groups[0]["model_requested"], "claude-opus-5-9");
    assert_eq!(
        (
            &groups[0]["calls"],
            &groups[0]["prompt_tokens"],
            &groups[0]["output_tokens"]
        ),
        (&2.into(), &240.into(), &14.into())
    );
    assert_eq!(groups[0]["priced_now"], false);
    assert!(
        groups[0]["near"]
            .as_str()
            .unwrap()
            .starts_with("anthropic/claude-opus-5")
    );
    assert_eq!(groups[1]["priced_now"], true);
    let text = weir(dir.path(), &["check"]).unwrap();
    assert!(
        text.contains("[[price]]") && text.contains("has a price now"),
        "{text}"
    );
}
