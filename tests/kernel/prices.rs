//! The price file that litellm publishes, whole, imported by `weir prices import` and compared with the built-in table.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use weir_core::pricing::{self, Context, Cost, Format, PriceTable};
use weir_core::usage::Usage;

use crate::sdks::installation;
use crate::world::{WEIR, success};

/// Models that cost in the file what they cost in the built-in table, of which each is from another source.
const SAME: [(&str, &str); 10] = [
    ("openai", "gpt-6-sol"),
    ("openai", "gpt-5.5"),
    ("openai", "gpt-4.1-mini"),
    ("anthropic", "claude-opus-5"),
    ("anthropic", "claude-opus-5-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("google", "gemini-2.5-flash"),
    ("groq", "openai/gpt-oss-120b"),
    ("moonshotai", "kimi-k3"),
    ("x-ai", "grok-4.3"),
];

/// Each kind of token alone, in a number that shows a nano-dollar; and prompts beyond every cliff.
fn usages() -> Vec<Usage> {
    let mut usages = Vec::new();
    for tokens in [1000, 300_000] {
        usages.extend([
            Usage {
                input: tokens,
                ..Usage::default()
            },
            Usage {
                input: tokens,
                output: 1000,
                ..Usage::default()
            },
            Usage {
                cache_read: tokens,
                ..Usage::default()
            },
        ]);
    }
    usages
}

#[test]
fn the_price_file_of_litellm_is_imported_and_agrees_with_the_built_in_table() {
    let file = installation().join("prices/model_prices_and_context_window_backup.json");
    let text = fs::read_to_string(&file).unwrap();
    let list = pricing::import(&text, Some(Format::Litellm), "")
        .unwrap()
        .list();
    let imported = PriceTable::builtin().clone().under(list);
    for (provider, model) in SAME {
        let context = Context {
            provider,
            model,
            at_unix: 1_795_608_000, // 2026-11-25
            ..Context::default()
        };
        let quote = imported.quote(&context);
        let quote = quote.unwrap_or_else(|| panic!("{provider} {model}"));
        assert!(quote.version().starts_with("litellm"), "{model}");
        for usage in usages() {
            let total = |cost: Option<Cost>| cost.map(|cost| cost.total);
            let built_in = total(PriceTable::builtin().price(&context, &usage));
            assert!(built_in.is_some(), "{provider} {model}");
            let found = total(quote.price(&usage));
            assert_eq!(found, built_in, "{provider} {model} {usage:?}");
        }
    }
    says_what_it_imports(&file);
}

fn says_what_it_imports(file: &Path) {
    let state = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let mut weir = Command::new(WEIR);
        weir.arg("prices").args(arguments);
        success(&weir.env("WEIR_STATE_DIR", state.path()).output().unwrap())
    };
    let imported = said(&["import", "--json", file.to_str().unwrap()]);
    let imported: Value = serde_json::from_str(&imported).unwrap();
    assert_eq!(imported["format"], "litellm", "{imported}");
    assert!(imported["models"].as_u64().unwrap() > 2000, "{imported}");
    // Not that of a region, which has a row of its own.
    let shown = said(&["show", "--provider", "azure", "gpt-4o"]);
    assert!(shown.contains("standard  input 2.5  output 10"), "{shown}");
}
