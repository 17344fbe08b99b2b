//! The providers' official SDKs: what they report as used is what Weir recorded and what the provider bills.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::{Value, json};
use weir_simulator::Usage;

use crate::world::{Providers, Setup, World, success};

/// A program that calls a provider through its SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sdk {
    pub(crate) script: &'static str,
    pub(crate) calls: usize,
}

pub(crate) const PYTHON_ANTHROPIC: Sdk = Sdk {
    script: "anthropic_calls.py",
    calls: 5,
};
pub(crate) const PYTHON_OPENAI: Sdk = Sdk {
    script: "openai_calls.py",
    calls: 11,
};
pub(crate) const NODE_ANTHROPIC: Sdk = Sdk {
    script: "anthropic_calls.js",
    calls: 3,
};
pub(crate) const NODE_OPENAI: Sdk = Sdk {
    script: "openai_calls.js",
    calls: 6,
};

/// The others: plain and streamed, by the synchronous client and the asynchronous one where there is one.
const PYTHON_GEMINI: Sdk = other("gemini_calls.py", 8);
const PYTHON_MISTRAL: Sdk = other("mistral_calls.py", 6);
const PYTHON_GROQ: Sdk = other("groq_calls.py", 6);
const PYTHON_COHERE: Sdk = other("cohere_calls.py", 6);
const NODE_GEMINI: Sdk = other("gemini_calls.js", 3);
/// Converse for three models and `InvokeModel` for two.
pub(crate) const PYTHON_BEDROCK: Sdk = other("bedrock_calls.py", 10);
/// The clients for Bedrock, Vertex AI and Azure, each.
const PYTHON_ELSEWHERE: Sdk = other("elsewhere_calls.py", 4);

pub(crate) const fn other(script: &'static str, calls: usize) -> Sdk {
    Sdk { script, calls }
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
    the_calls_are_on_all_three_books(
        sdk,
        "all",
        Setup {
            config: "",
            providers,
        },
    );
}

fn the_calls_are_on_all_three_books(sdk: Sdk, part: &str, setup: Setup<'_>) {
    installation();
    let world = World::new(setup);
    let output = world.output(sdk.run(&world, &[], part));
    let said = success(&output);
    let reported = lines(&said);
    assert_eq!(reported.len(), sdk.calls, "{said}");
    world.books_agree();
    let records = world.records();
    assert_eq!(records.len(), sdk.calls, "{records:?}");
    for (said, record) in reported.iter().zip(&records) {
        agrees(said, &record.usage);
    }
    if sdk != PYTHON_COHERE {
        assert!(
            records.iter().any(|record| record.usage.cache_read > 0),
            "{records:?}"
        );
    }
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

fn lines(said: &str) -> Vec<Value> {
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What an SDK says of a call is what was recorded: a usage as it is, or counts as `say.py` has them.
fn agrees(said: &Value, usage: &Usage) {
    let written = usage.cache_write_short + usage.cache_write_long;
    match said {
        Value::Null => {}
        Value::Array(counts) if counts.len() == 3 => {
            let recorded = json!([usage.prompt(), usage.cache_read, usage.output]);
            assert_eq!(*said, recorded);
        }
        Value::Array(_) => {
            let recorded = json!([
                usage.input_uncached,
                usage.cache_read,
                written,
                usage.output
            ]);
            assert_eq!(*said, recorded);
        }
        said => assert_eq!(prompt_and_output(said), totals(usage), "{said}"),
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
fn the_python_sdk_of_gemini_agrees_with_the_books() {
    every_call_is_on_all_three_books(PYTHON_GEMINI, Providers::Nowhere4);
}

#[test]
fn what_an_sdk_has_counted_beforehand_costs_nothing_and_is_what_is_used_then() {
    installation();
    for sdk in [PYTHON_ANTHROPIC, PYTHON_GEMINI, PYTHON_BEDROCK] {
        let world = World::new(Setup::default());
        let said = success(&world.output(sdk.run(&world, &[], "counted")));
        world.calls_agree();
        let records = world.records();
        let [counted, used] = records.as_slice() else {
            panic!("{sdk:?}: {records:?}");
        };
        assert_eq!(lines(&said)[0], used.usage.prompt(), "{sdk:?}: {said}");
        agrees(&lines(&said)[1], &used.usage);
        assert_eq!((counted.api.as_str(), counted.nanodollars), ("", 0));
        assert_eq!(counted.outcome, "completed", "{counted:?}");
    }
}

#[test]
fn the_node_sdk_of_gemini_agrees_with_the_books() {
    every_call_is_on_all_three_books(NODE_GEMINI, Providers::Nowhere4);
}

#[test]
fn the_python_sdk_of_mistral_agrees_with_the_books() {
    every_call_is_on_all_three_books(PYTHON_MISTRAL, Providers::Nowhere4);
}

#[test]
fn the_python_sdk_of_groq_agrees_with_the_books() {
    every_call_is_on_all_three_books(PYTHON_GROQ, Providers::Nowhere4);
}

#[test]
fn the_python_sdk_of_cohere_agrees_with_the_books() {
    every_call_is_on_all_three_books(PYTHON_COHERE, Providers::Nowhere4);
}

#[test]
fn the_clients_for_other_hosts_agree_with_the_books() {
    for part in ["bedrock", "vertex", "gemini", "azure"] {
        the_calls_are_on_all_three_books(PYTHON_ELSEWHERE, part, Setup::default());
    }
}

const REWRITE: &str = "[cache]\nmode = \"rewrite\"\n";

#[test]
fn a_conversation_of_boto3_is_marked_for_the_cache_unless_it_is_signed() {
    installation();
    for (part, is_marked) in [("growing", false), ("unsigned growing", true)] {
        let world = World::new(Setup {
            config: REWRITE,
            ..Setup::default()
        });
        let said = success(&world.output(PYTHON_BEDROCK.run(&world, &[], part)));
        world.books_agree();
        let records = world.records();
        assert_eq!(records.len(), 9, "{records:?}");
        for (said, record) in lines(&said).iter().zip(&records) {
            agrees(said, &record.usage);
        }
        let conversations = ["claude", "nova", "claude by invoke_model"];
        for (model, calls) in conversations.into_iter().zip(records.chunks(3)) {
            let read: Vec<u64> = calls.iter().map(|call| call.usage.cache_read).collect();
            assert_eq!(read[2] > 0, is_marked, "{model}: {read:?}");
        }
    }
}

/// The provider verifies each signature over the request as it arrives, so that nothing can have been edited.
#[test]
fn boto3_agrees_with_the_books_and_its_signatures_hold_in_every_mode() {
    for (config, part) in [("", "all"), (REWRITE, "all"), (REWRITE, "unsigned")] {
        let setup = Setup {
            config,
            ..Setup::default()
        };
        the_calls_are_on_all_three_books(PYTHON_BEDROCK, part, setup);
    }
}

#[test]
fn an_exception_in_a_stream_of_bedrock_reaches_boto3_and_its_cost_is_estimated() {
    installation();
    let world = World::new(Setup::default());
    let said = success(&world.output(PYTHON_BEDROCK.run(&world, &[], "broken")));
    assert_eq!(lines(&said)[0]["Code"], "throttlingException", "{said}");
    let records = world.records();
    let [record] = records.as_slice() else {
        panic!("{records:?}");
    };
    // The usage would have come last: what was asked and what had been said by then are estimated.
    assert_eq!(record.outcome, "provider_error", "{record:?}");
    assert_eq!(record.cost, "estimated", "{record:?}");
    let billed = world.simulator.total_nanodollars();
    let off = record.nanodollars.abs_diff(billed);
    assert!(off < billed / 5, "{} for {billed}", record.nanodollars);
}

/// Weir's own frame, with its checksums, is read as the service's would be.
#[test]
fn a_stream_of_bedrock_that_outgrows_its_cap_ends_in_an_exception_of_the_sdk() {
    installation();
    let config =
        "[[cap]]\nname = \"pocket money\"\nper = [\"model\"]\nwindow = \"day\"\nlimit_usd = 0.1\n";
    for (sdk, calls) in [(PYTHON_BEDROCK, 2), (PYTHON_ELSEWHERE, 1)] {
        let world = World::new(Setup {
            config,
            ..Setup::default()
        });
        let said = success(&world.output(sdk.run(&world, &[], "outgrown")));
        assert_eq!(lines(&said).len(), calls, "{said}");
        for error in lines(&said) {
            let message = error["Message"].as_str().unwrap();
            assert!(message.starts_with("Weir ended this answer: "), "{error}");
            assert!(message.contains("pocket money"), "{error}");
        }
        let records = world.records();
        let outcomes: Vec<_> = records.iter().map(|record| &record.outcome).collect();
        assert_eq!(outcomes, vec!["cut_off"; calls], "{records:?}");
    }
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
    for (sdk, kinds, status) in [
        (PYTHON_ANTHROPIC, 1, 402),
        (PYTHON_OPENAI, 2, 402),
        (NODE_ANTHROPIC, 1, 402),
        (NODE_OPENAI, 2, 402),
        (PYTHON_BEDROCK, 4, 400),
    ] {
        let world = World::new(Setup {
            config: SPENT,
            ..Setup::default()
        });
        let output = world.output(sdk.run(&world, &[], "refused"));
        let said = success(&output);
        let refusals = lines(&said);
        assert_eq!(refusals.len(), kinds, "{said}");
        for refusal in &refusals {
            assert_eq!(refusal["status"], status, "{sdk:?}: {refusal}");
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
