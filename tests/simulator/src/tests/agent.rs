//! The scripted agent, run against the simulated providers.

use http::Version;

use super::client::{Path, send, start};
use crate::Billed;
use crate::agent::Agent;

/// Runs the agent and gives, for each turn, what it was for and its line on the bill.
async fn run(absorb: bool) -> Vec<(&'static str, Billed)> {
    let simulator = start();
    let mut agent = Agent::new();
    let mut turns = Vec::new();
    while let Some(request) = agent.next_request() {
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let path = Path(request.path);
        assert_eq!(path.host(), request.host);
        let headers: Vec<_> = headers
            .into_iter()
            .filter(|(n, _)| *n != "content-type")
            .collect();
        let answer = send(&simulator, Version::HTTP_2, path, &headers, request.body).await;
        assert_eq!(answer.status, 200, "{}", request.what);
        let read = answer.read().await;
        if absorb {
            agent.absorb(&read.bytes);
        }
        turns.push((request.what, simulator.bill().pop().unwrap()));
    }
    turns
}

#[tokio::test]
async fn the_agent_grows_from_seven_to_thirty_thousand_tokens_and_loses_its_cache_to_the_clock() {
    let turns = Box::pin(run(true)).await;
    assert_eq!(turns.len(), Agent::turns());
    let main: Vec<&(&str, Billed)> = turns
        .iter()
        .filter(|(_, line)| line.model == "claude-sonnet-5-5")
        .collect();
    let (first, last) = (
        main[0].1.usage.prompt(),
        main.last().unwrap().1.usage.prompt(),
    );
    assert!((6000..=8500).contains(&first), "{first}");
    assert!((25_000..=34_000).contains(&last), "{last}");
    for pair in main.windows(2) {
        let (what, line) = pair[1];
        let lost = what.contains("(later)") || *what == "a tool server connects";
        let expected = if lost { 0 } else { pair[0].1.usage.prompt() };
        assert_eq!(line.usage.cache_read, expected, "{what}");
        assert!(
            line.usage.prompt() > pair[0].1.usage.prompt(),
            "{what} adds to the conversation"
        );
    }
    for what in ["review again", "shorten them"] {
        let (_, line) = turns.iter().find(|(found, _)| *found == what).unwrap();
        assert!(line.usage.cache_read > 1024, "{what}: {line:?}");
    }
    let (_, title) = &turns[0];
    assert_eq!(
        title.usage.cache_read + title.usage.cache_write_short,
        0,
        "too short to be cached"
    );
}

#[tokio::test]
async fn an_agent_whose_answers_are_lost_goes_on() {
    assert_eq!(Box::pin(run(false)).await.len(), Agent::turns());
}

#[test]
fn the_agent_is_the_same_every_time() {
    let bodies = || {
        let mut agent = Agent::new();
        std::iter::from_fn(move || agent.next_request()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(), bodies());
}
