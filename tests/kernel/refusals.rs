//! Refusals as the providers' official SDKs give them to a program: an exception of theirs, at once, not
//! tried again, with a message that says what was exceeded.

use serde_json::Value;

use crate::sdks::{Sdk, installation, other};
use crate::world::{Setup, World, success};

/// Each SDK, and how many streams and breakers its program runs into.
const SDKS: [(Sdk, usize, usize); 4] = [
    (other("anthropic_refusals.py", 0), 3, 1),
    (other("anthropic_refusals.js", 0), 2, 1),
    (other("openai_refusals.py", 0), 4, 2),
    (other("openai_refusals.js", 0), 3, 2),
];

/// No answer is as long as this lets one be, by the experience of any call before it.
const PER_CALL: &str =
    "[[cap]]\nname = \"one answer\"\nwindow = \"day\"\nlimit_usd = 100\nper_call_usd = 0.10\n";
const BREAKER: &str = "[[breaker]]\nname = \"a runaway\"\nper = [\"user\", \"provider\", \"model\"]\nwindow = \"rolling 5m\"\nlimit_usd = 0.15\n";

/// What an SDK raised, line by line; and what was recorded.
fn raised(sdk: Sdk, part: &str, config: &str) -> (Vec<Value>, World) {
    installation();
    let world = World::new(Setup {
        config,
        ..Setup::default()
    });
    let said = success(&world.output(sdk.run(&world, &[], part)));
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), world)
}

fn outcomes(world: &World, wanted: &str) -> usize {
    let records = world.records();
    let those = records.iter().filter(|record| record.outcome == wanted);
    those.count()
}

#[track_caller]
fn check_message(sdk: Sdk, line: &Value, parts: &[&str]) {
    let message = line["message"].as_str().unwrap();
    for part in parts {
        assert!(message.contains(part), "{sdk:?}: {part}: {line}");
    }
    // The SDKs wait for at least half a second before they try again.
    assert!(line["seconds"].as_f64().unwrap() < 0.4, "{sdk:?}: {line}");
}

#[test]
fn a_refusal_in_a_stream_that_has_begun_is_an_exception_of_the_sdk() {
    for (sdk, streams, _) in SDKS {
        let (lines, world) = raised(sdk, "stream", PER_CALL);
        assert_eq!(lines.len(), streams, "{sdk:?}: {lines:?}");
        for line in &lines {
            assert!(line["events"].as_u64().unwrap() > 20, "{sdk:?}: {line}");
            let parts = ["Weir ended this answer: ", "one answer", "$0.10"];
            check_message(sdk, line, &parts);
        }
        // One each: had an SDK tried again, there were more.
        assert_eq!(outcomes(&world, "cut_off"), streams, "{sdk:?}");
        assert_eq!(world.records().len(), streams, "{sdk:?}");
        assert_eq!(world.simulator.received().len(), streams, "{sdk:?}");
    }
}

#[test]
fn a_breaker_is_the_sdks_own_rate_limit_error_and_not_waited_for() {
    for (sdk, _, breakers) in SDKS {
        let (lines, world) = raised(sdk, "breaker", BREAKER);
        assert_eq!(lines.len(), breakers, "{sdk:?}: {lines:?}");
        for line in &lines {
            assert!(line["events"].as_u64().unwrap() > 0, "{sdk:?}: {line}");
            assert_eq!(line["kind"], "RateLimitError");
            check_message(sdk, line, &["a runaway", "$0.15", "Calls pass again at"]);
        }
        assert_eq!(outcomes(&world, "refused"), breakers, "{sdk:?}");
    }
}
