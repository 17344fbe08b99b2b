//! HTTP/2 to an application that reads nothing for a while: what is last of an answer waits in the closed
//! window of its stream, and the record of the call does not wait for it.

use http::Version;
use weir::ledger::Outcome;
use weir::process::config::Config;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

use super::assert_billed;

const DIRECTIONS: &str = "[[sim: tokens=120 events=9]]";

async fn connect(world: &World, simulator: &Simulator, api: Api, window_bytes: u32) -> Client {
    let addr = simulator.addr();
    let stream = world.tls(addr, api.host(), &[b"h2"]).await.unwrap();
    Client::with_window(stream, api.host(), window_bytes).await
}

/// How long an answer is, by one that is read at once.
async fn length(world: &World, simulator: &Simulator, api: Api, stream: bool) -> u32 {
    let mut client = Client::connect(world, simulator.addr(), api.host(), Version::HTTP_2).await;
    let (_, answer) = client.ask(api, &api.call(DIRECTIONS, stream)).await;
    world.record().await;
    u32::try_from(answer.len()).unwrap()
}

#[tokio::test]
async fn a_call_is_settled_before_what_is_last_of_its_answer_fits_into_the_window() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    // Nothing is settled behind an answer here.
    let _held = world.sidecar.hold_settling();
    for api in Api::ALL {
        let length = length(&world, &simulator, api, false).await;
        for window in [length - 1, length / 2, 1] {
            let mut client = connect(&world, &simulator, api, window).await;
            let answer = client.call(api, &api.call(DIRECTIONS, false)).await;
            // Of the answer nothing is read yet, so that its last byte can't have come.
            let record = world.record().await;
            let what = format!("{api:?}, a window of {window} of {length} bytes");
            assert_eq!(record.outcome, Outcome::Completed, "{what}");
            assert_eq!(record.response_bytes, u64::from(length), "{what}");
            assert_billed(&what, &record, &simulator.bill().pop().unwrap());
            let answer = answer.unwrap().whole().await.unwrap();
            assert_eq!(answer.len(), usize::try_from(length).unwrap(), "{what}");
        }
    }
    world.no_more_records().await;
}

#[tokio::test]
async fn a_stream_whose_window_is_closed_is_settled_once_before_it_ends() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let _held = world.sidecar.hold_settling();
    let mut calls = 0;
    for api in Api::ALL {
        let length = length(&world, &simulator, api, true).await;
        calls += 1;
        for window in [length, length - 1, length / 2, 1] {
            let mut client = connect(&world, &simulator, api, window).await;
            let answer = client.call(api, &api.call(DIRECTIONS, true)).await;
            let answer = answer.unwrap().whole().await.unwrap();
            calls += 1;
            let what = format!("{api:?}, a window of {window} of {length} bytes");
            assert_eq!(world.sidecar.summary().calls, calls, "{what}");
            let record = world.record().await;
            assert_eq!(record.outcome, Outcome::Completed, "{what}");
            assert_eq!(record.response_bytes, u64::from(length), "{what}");
            assert_eq!(answer.len(), usize::try_from(length).unwrap(), "{what}");
            assert_billed(&what, &record, &simulator.bill().pop().unwrap());
        }
    }
    world.no_more_records().await;
}

#[tokio::test]
async fn an_application_that_goes_away_with_its_window_closed_leaves_one_record() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let api = Api::Messages;
    let length = length(&world, &simulator, api, false).await;
    let mut client = connect(&world, &simulator, api, length - 1).await;
    let answer = client.call(api, &api.call(DIRECTIONS, false)).await;
    let record = world.record().await;
    drop((answer, client));
    // All of it came from its provider, which bills it.
    assert_eq!(record.outcome, Outcome::Completed);
    assert_billed("it", &record, &simulator.bill().pop().unwrap());
    world.no_more_records().await;
}
