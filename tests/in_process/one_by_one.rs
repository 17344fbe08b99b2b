//! One conversation for each start of Weir, as `weir run -- agent` has it: what one run sees of a
//! workload is what the next one goes by.

use http::StatusCode;
use tempfile::TempDir;
use weir::process::config::CacheMode;
use weir_simulator::{Options, Simulator};
use weir_tests::World;

use crate::rewrite::{Agent, client, config};

#[tokio::test]
async fn what_a_workload_shows_outlives_the_run_that_saw_it() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let mut state = TempDir::new().unwrap();
    for (number, date) in ["2026-06-15", "2026-06-16", "2026-06-17"]
        .into_iter()
        .enumerate()
    {
        let rewriting = config(CacheMode::Rewrite, "");
        let world = World::continued(state, &[simulator.ca_pem()], rewriting);
        let mut client = client(&world, &simulator).await;
        let mut agent = Agent::new("claude-opus-5-5", false, &format!("Begin {number}."));
        assert_eq!(agent.turn(&mut client, date).await, StatusCode::OK);
        drop(client);
        state = world.stop().await;
    }
    let is_moved = |of: usize| {
        let body = String::from_utf8(simulator.received()[of].body.to_vec()).unwrap();
        body.contains("[see <current-date> in <context_values>]")
    };
    assert_eq!([0, 1, 2].map(is_moved), [false, true, true]);
    let last = &simulator.bill()[2].usage;
    assert!(last.cache_read * 10 > last.prompt() * 9, "{last:?}");
}
