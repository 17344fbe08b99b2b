//! The providers' official SDKs: what they report as used is what Weir recorded and what the provider bills.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;
use weir_simulator::Usage;

use crate::world::{Providers, Setup, World, success};

/// A program that calls a provider through its SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sdk {
    script: &'static str,
    calls: usize,
}

pub(crate) const PYTHON_ANTHROPIC: Sdk = Sdk {
    script: "anthropic_calls.py",
    calls: 5,
};
pub(crate) const PYTHON_OPENAI: Sdk = Sdk {
    script: "openai_calls.py",
    calls: 9,
};
pub(crate) const NODE_ANTHROPIC: Sdk = Sdk {
    script: "anthropic_calls.js",
    calls: 3,
};
pub(crate) const NODE_OPENAI: Sdk = Sdk {
    script: "openai_calls.js",
    calls: 5,
};

/// All four calls of each: plain and streamed, by the synchronous client and the asynchronous one.
const PYTHON_OTHERS: [Sdk; 4] = [
    other("gemini_calls.py"),
    other("mistral_calls.py"),
    other("groq_calls.py"),
    other("cohere_calls.py"),
];

const fn other(script: &'static str) -> Sdk {
    Sdk { script, calls: 4 }
}

impl Sdk {
    /// The command line that makes the calls called `part`.
    pub(crate) fn command(self, part: &str) -> Vec<PathBuf> {
        let script = Path::new(SCRIPTS).join(self.script);
        let interpreter = if self.script.ends_with(".py") {
            installation().join("python/bin/python")
        } else {
            PathBuf::from("node")
        };
        vec![interpreter, script, part.into()]
    }

    /// `weir run` with the SDK in it.
    pub(crate) fn run(self, world: &World, options: &[&str], part: &str) -> Command {
        let mut weir = world.run(options, self.command(part));
        weir.env("NODE_PATH", installation().join("node/node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        weir
    }
}

/// Where the SDKs are installed, once. To be asked for before the test has a network of its own.
pub(crate) fn installation() -> &'static Path {
    static INSTALLATION: OnceLock<PathBuf> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdks");
        let installed = Command::new(Path::new(SCRIPTS).join("install"))
            .arg(&directory)
            .output()
            .unwrap();
        success(&installed);
        directory
    })
}

fn every_call_is_on_all_three_books(sdk: Sdk, providers: Providers) {
    installation();
    let world = World::new(Setup {
        config: "",
        providers,
    });
    let output = world.output(sdk.run(&world, &[], "all"));
    let said = success(&output);
    let reported: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(reported.len(), sdk.calls, "{said}");
    world.books_agree();
    let records = world.records();
    assert_eq!(records.len(), sdk.calls, "{records:?}");
    for (usage, record) in reported.iter().zip(&records) {
        if !usage.is_null() {
            assert_eq!(prompt_and_output(usage), totals(&record.usage), "{usage}");
        }
    }
    assert!(
        records.iter().any(|record| record.usage.cache_read > 0),
        "{records:?}"
    );
    let total = &world.spend()["total"];
    assert_eq!(total["calls"], sdk.calls, "{total}");
    assert_eq!(
        total["cost_nano_usd"],
        world.simulator.total_nanodollars(),
        "{total}"
    );
    let summary = String::from_utf8(output.stderr).unwrap();
    let expected = format!("weir: {} LLM calls, $", sdk.calls);
    assert!(summary.contains(&expected), "{summary}");
    assert!(!summary.contains("not inspected"), "{summary}");
}

#[test]
fn the_python_sdks_of_other_dialects_agree_with_the_books() {
    installation();
    for sdk in PYTHON_OTHERS {
        let world = World::new(Setup::default());
        let said = success(&world.output(sdk.run(&world, &[], "all")));
        world.books_agree();
        let recorded: Vec<Value> = world
            .records()
            .iter()
            .map(|record| {
                let usage = record.usage;
                serde_json::json!([usage.prompt(), usage.cache_read, usage.output])
            })
            .collect();
        let reported: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(reported, recorded, "{sdk:?}");
        assert_eq!(reported.len(), sdk.calls, "{sdk:?}");
    }
}

/// Uncached input, cache read, cache written, output, reasoning: as an SDK reports them.
fn prompt_and_output(usage: &Value) -> [u64; 5] {
    let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    if let Some(read) = number("/cache_read_input_tokens") {
        // Anthropic counts thinking as output, and says no more of it.
        return [
            number("/input_tokens").unwrap(),
            read,
            number("/cache_creation_input_tokens").unwrap(),
            number("/output_tokens").unwrap(),
            0,
        ];
    }
    let [prompt, input_details, output, output_details] = if usage.get("prompt_tokens").is_some() {
        [
            "prompt_tokens",
            "prompt_tokens_details",
            "completion_tokens",
            "completion_tokens_details",
        ]
    } else {
        [
            "input_tokens",
            "input_tokens_details",
            "output_tokens",
            "output_tokens_details",
        ]
    };
    let read = number(&format!("/{input_details}/cached_tokens")).unwrap();
    let written = number(&format!("/{input_details}/cache_write_tokens")).unwrap();
    [
        number(&format!("/{prompt}")).unwrap() - read - written,
        read,
        written,
        number(&format!("/{output}")).unwrap(),
        number(&format!("/{output_details}/reasoning_tokens")).unwrap(),
    ]
}

fn totals(usage: &Usage) -> [u64; 5] {
    [
        usage.input_uncached,
        usage.cache_read,
        usage.cache_write_short + usage.cache_write_long,
        usage.output,
        usage.reasoning,
    ]
}

#[test]
fn the_python_sdk_of_anthropic_agrees_with_the_books() {
    every_call_is_on_all_three_books(PYTHON_ANTHROPIC, Providers::Nowhere4);
}

#[test]
fn the_python_sdk_of_openai_agrees_with_the_books() {
    every_call_is_on_all_three_books(PYTHON_OPENAI, Providers::Nowhere4);
}

#[test]
fn the_node_sdk_of_anthropic_agrees_with_the_books() {
    every_call_is_on_all_three_books(NODE_ANTHROPIC, Providers::Nowhere4);
}

#[test]
fn the_node_sdk_of_openai_agrees_with_the_books() {
    every_call_is_on_all_three_books(NODE_OPENAI, Providers::Nowhere4);
}

#[test]
fn a_provider_that_has_only_an_ipv6_address_is_reached_all_the_same() {
    every_call_is_on_all_three_books(NODE_ANTHROPIC, Providers::Nowhere6);
}

/// The cap has room for nothing.
const SPENT: &str = "[[cap]]\nname = \"pocket money\"\nwindow = \"day\"\nlimit_usd = 0.000001\n";

#[test]
fn a_spent_cap_is_an_exception_of_the_sdk_and_is_not_retried() {
    installation();
    for (sdk, kinds) in [
        (PYTHON_ANTHROPIC, 1),
        (PYTHON_OPENAI, 2),
        (NODE_ANTHROPIC, 1),
        (NODE_OPENAI, 2),
    ] {
        let world = World::new(Setup {
            config: SPENT,
            ..Setup::default()
        });
        let output = world.output(sdk.run(&world, &[], "refused"));
        let said = success(&output);
        let refusals: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(refusals.len(), kinds, "{said}");
        for refusal in &refusals {
            assert_eq!(refusal["status"], 402, "{sdk:?}: {refusal}");
            let message = refusal["message"].as_str().unwrap();
            for part in ["pocket money", "$0.000001", "reset"] {
                assert!(message.contains(part), "{sdk:?}: {part}: {message}");
            }
        }
        // One each: had an SDK tried again, there were more.
        let outcomes: Vec<String> = world
            .records()
            .into_iter()
            .map(|record| record.outcome)
            .collect();
        assert_eq!(outcomes, vec!["refused"; kinds], "{sdk:?}");
        assert_eq!(world.simulator.received().len(), 0, "{sdk:?}");
        let summary = String::from_utf8(output.stderr).unwrap();
        assert!(summary.contains("refused by a cap"), "{summary}");
    }
}

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdks");
