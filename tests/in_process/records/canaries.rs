//! What was not asked for is not at rest: no key, no prompt, no answer, in files, log and metrics.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::Version;
use weir::process::config::Config;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

/// What the client's key, prompt, and the answer have in them.
const PROMPT: &str = "CANARY-PROMPT-eQ7";

/// What every sidecar of this process says, whichever test it is of: a log of one thread alone
/// would miss places that another thread came by first.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All files below `directory`, one after the other.
fn contents(directory: &Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents(&path, into);
        } else {
            into.extend(std::fs::read(path).unwrap());
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn caught_log() -> Log {
    let log = Log::default();
    let of_subscriber = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("weir=trace")
        .with_writer(move || of_subscriber.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
}

#[tokio::test]
async fn keys_prompts_and_answers_are_nowhere_at_rest() {
    let log = caught_log();
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut answers = Vec::new();
    for api in Api::ALL {
        let mut client =
            Client::connect(&world, simulator.addr(), api.host(), Version::HTTP_11).await;
        for directions in [
            "tokens=40",
            "status=429",
            "malformed",
            "tokens=30 error_after=3",
            "gzip",
        ] {
            for stream in [false, true] {
                let text = format!("{PROMPT} [[sim: {directions}]]");
                let (_, answer) = client.ask(api, &api.call(&text, stream)).await;
                answers.push(answer);
                world.record().await;
            }
        }
        // What Weir can't read, it may complain about, and not quote.
        let unreadable = format!("{{\"model\": \"{PROMPT}\", \"{PROMPT}\" {PROMPT}}}");
        let answer = client
            .send(weir_tests::request(api, unreadable))
            .await
            .unwrap();
        answer.whole().await.unwrap();
        world.record().await;
    }
    let summary = format!("{:?} {}", world.sidecar.summary(), world.sidecar.status());
    let metrics = world.sidecar.metrics();
    let rows = world.stored().len();
    assert_eq!(rows, 33);
    let mut at_rest = Vec::new();
    contents(world.state(), &mut at_rest);
    assert!(
        contains(&at_rest, "claude-opus-5-5"),
        "the search finds what is there"
    );
    let logged = log.0.lock().unwrap().clone();
    assert!(
        contains(&logged, "expected a call, forwarded unread"),
        "the log was caught"
    );
    let key = weir_tests::KEY;
    let said = String::from_utf8_lossy(&answers[0]).into_owned();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let said = said["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(said.len() > 40, "{said}");
    let said: String = said.chars().take(30).collect();
    for canary in [PROMPT, key, key.get(..key.len() - 4).unwrap(), &said] {
        assert!(
            !contains(&at_rest, canary),
            "{canary} in the state directory"
        );
        assert!(!contains(&logged, canary), "{canary} in the log");
        assert!(
            !contains(metrics.as_bytes(), canary),
            "{canary} in the metrics"
        );
        assert!(
            !contains(summary.as_bytes(), canary),
            "{canary} in the status"
        );
    }
}
