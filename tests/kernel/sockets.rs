//! Calls that official SDKs make inside WebSockets: Responses and Realtime, each on all three books.

use serde_json::{Value, json};

use crate::sdks::{Sdk, installation};
use crate::world::{Setup, World, success};

fn every_call_inside_a_socket_is_on_all_three_books(sdk: Sdk) {
    installation();
    let world = World::new(Setup::default());
    let output = world.output(sdk.run(&world, &[], ""));
    let said = success(&output);
    world.calls_agree();
    let records = world.records();
    // The sockets themselves are records without an API.
    let calls: Vec<_> = records.iter().filter(|call| !call.api.is_empty()).collect();
    let recorded: Vec<Value> = calls
        .iter()
        .map(|call| {
            json!([
                call.usage.prompt(),
                call.usage.cache_read,
                call.usage.output
            ])
        })
        .collect();
    let reported: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(reported, recorded);
    assert_eq!(reported.len(), sdk.calls);
    for api in ["responses", "realtime"] {
        let read = |call: &&&crate::world::Recorded| call.api == api && call.usage.cache_read > 0;
        assert!(calls.iter().find(read).is_some(), "{api}: {records:?}");
    }
    let summary = String::from_utf8(output.stderr).unwrap();
    let expected = format!("weir: {} LLM calls, $", sdk.calls);
    assert!(summary.contains(&expected), "{summary}");
    assert!(!summary.contains("not inspected"), "{summary}");
}

#[test]
fn the_python_sdk_of_openai_agrees_with_the_books_inside_sockets() {
    every_call_inside_a_socket_is_on_all_three_books(Sdk {
        script: "openai_sockets.py",
        calls: 6,
    });
}

#[test]
fn the_node_sdk_of_openai_agrees_with_the_books_inside_sockets() {
    every_call_inside_a_socket_is_on_all_three_books(Sdk {
        script: "openai_sockets.js",
        calls: 4,
    });
}
