//! What a cap may do besides refusing for good: clamp, downgrade, refuse for a time, warn.

use http::Version;
use serde_json::Value;
use weir::ledger::Outcome;
use weir::process::config::{Cap, CapKind, Config, OnExceed, Secret, Window};
use weir_core::money::Money;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, Scripted, World};

use crate::caps::{cap, with};

async fn client(world: &World, simulator: &Simulator, api: Api) -> Client {
    Client::connect(world, simulator.addr(), api.host(), Version::HTTP_11).await
}

#[tokio::test]
async fn a_clamped_call_goes_on_with_a_limit_that_fits() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let clamps = Cap {
        clamp: true,
        ..cap(5, CapKind::Strict)
    };
    let world = World::start(&[simulator.ca_pem()], with(clamps));
    for api in Api::ALL {
        let mut body = api.call("hello", false);
        for limit in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            if body.get(limit).is_some() {
                body[limit] = 64_000.into();
            }
        }
        let mut client = client(&world, &simulator, api).await;
        assert_eq!(client.ask(api, &body).await.0, 200);
        let record = world.record().await;
        assert_eq!(record.outcome, Outcome::Completed);
        assert_eq!(record.reasons, ["clamped"]);
        let rules: Vec<&str> = record.edits.iter().map(|edit| edit.rule.as_str()).collect();
        assert_eq!(rules, ["clamp"]);
    }
}

#[tokio::test]
async fn a_downgraded_call_is_answered_by_the_lesser_model_and_says_so() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let falls = Cap {
        on_exceed: OnExceed::Downgrade,
        downgrade_to: "claude-haiku-5-5".to_owned(),
        ..cap(0, CapKind::Expected)
    };
    let world = World::start(&[simulator.ca_pem()], with(falls));
    let mut anthropic = client(&world, &simulator, Api::Messages).await;
    let (status, body) = anthropic
        .ask(Api::Messages, &Api::Messages.call("hello", false))
        .await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        answer["model"]
            .as_str()
            .unwrap()
            .starts_with("claude-haiku-5-5")
    );
    let record = world.record().await;
    assert_eq!(record.model_requested.as_deref(), Some("claude-haiku-5-5"));
    assert_eq!(record.reasons, ["downgraded"]);
    assert_eq!(record.edits[0].rule, "downgrade from claude-opus-5-5");
    // OpenAI has no such model: the cap is one that refuses there.
    let mut openai = client(&world, &simulator, Api::Chat).await;
    let (status, _) = openai.ask(Api::Chat, &Api::Chat.call("hello", false)).await;
    assert_eq!(status, 402);
}

#[tokio::test]
async fn a_breaker_refuses_for_a_time_and_says_for_how_long() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let window = Window::Hour.rolling().unwrap();
    let breaker = Cap {
        breaker: true,
        ..Cap::new("too fast", window, Money::from_nanos(1))
    };
    let config = Config {
        breakers: vec![breaker],
        ..Config::default()
    };
    let world = World::start(&[simulator.ca_pem()], config);
    let api = Api::Messages;
    let mut client = client(&world, &simulator, api).await;
    let answer = client.call(api, &api.call("hello", false)).await.unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["x-should-retry"], "false");
    assert!(answer.headers.contains_key("retry-after"));
    let record = world.record().await;
    assert_eq!(record.reasons, ["too_fast"]);
}

#[tokio::test]
async fn a_single_call_beyond_its_limit_is_refused_and_a_lesser_one_is_not() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let single = Cap {
        limits: weir_core::caps::Limits::default(),
        per_call: Some(Money::from_nanos(50_000_000)),
        ..cap(0, CapKind::Strict)
    };
    let world = World::start(&[simulator.ca_pem()], with(single));
    let api = Api::Messages;
    let mut client = client(&world, &simulator, api).await;
    let mut body = api.call("hello", false);
    body["max_tokens"] = 64_000.into();
    assert_eq!(client.ask(api, &body).await.0, 402);
    body["max_tokens"] = 500.into();
    assert_eq!(client.ask(api, &body).await.0, 200);
}

#[tokio::test]
async fn a_team_has_an_account_of_its_own() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let toml = "[teams.everybody]\nuser = [\"*\"]\n[[cap]]\nname = \"teams\"\nper = [\"team\"]\n\
                window = \"day\"\nlimit_calls = 1\n";
    let config = Config::parse(toml, std::path::Path::new("weir.toml")).unwrap();
    let world = World::start(&[simulator.ca_pem()], config);
    let api = Api::Messages;
    let mut client = client(&world, &simulator, api).await;
    assert_eq!(client.ask(api, &api.call("hello", false)).await.0, 200);
    let (status, body) = client.ask(api, &api.call("hello", false)).await;
    assert_eq!(status, 402);
    let error: Value = serde_json::from_slice(&body).unwrap();
    let details = &error["error"]["details"];
    assert_eq!(
        (&details["scope"], &details["limit_calls"]),
        (&"team=everybody".into(), &1.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_spent_is_told_to_the_webhook() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let hook = Scripted::http1().await;
    let warns = Cap {
        warn_at_permille: vec![10],
        ..cap(10, CapKind::Expected)
    };
    let mut config = with(warns);
    let url = "https://elsewhere.example/hook?token=secret";
    config.alerts.webhook = Some(Secret::Here(url.to_owned()));
    let host = "elsewhere.example".to_owned();
    config.upstream.resolve.insert(host, hook.addr);
    let world = World::start(&[simulator.ca_pem(), &hook.ca_pem], config);
    let api = Api::Messages;
    let mut client = client(&world, &simulator, api).await;
    let body = api.call("[[sim: tokens=300]]", false);
    assert_eq!(client.ask(api, &body).await.0, 200);
    let mut receiver = hook.accept().await;
    let message = receiver.message().await;
    assert!(
        message
            .head
            .starts_with("POST /hook?token=secret HTTP/1.1\r\n")
    );
    let alert: Value = serde_json::from_slice(&message.body).unwrap();
    assert!(
        alert["text"]
            .as_str()
            .unwrap()
            .contains("\"the test's\" (all) of $0.10")
    );
    assert_eq!(alert["weir"]["permille"], 10);
    assert_eq!(alert["weir"]["kind"], "share");
    receiver
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert_eq!(world.metric("weir_cap_warnings_total{kind=\"share\"}"), 1);
}
