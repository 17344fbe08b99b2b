//! Whose price counts: a list that was imported, a configured one, none where a plan pays; and what
//! becomes of a model that has no price.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir::ledger::{Cost, Outcome, Record};
use weir::process::config::{Cap, Config, Pricing, Subscriptions, Unpriced, Window};
use weir_core::money::Money;
use weir_core::pricing::Negotiated;
use weir_tests::{PATIENCE, World};

use crate::replay::Replay;

/// The provider, and a sidecar before it.
struct Scene {
    server: Replay,
    world: World,
}

impl Scene {
    async fn with(pricing: Pricing) -> Self {
        // Small enough for nothing but what is no money to pass.
        let caps = vec![Cap::new("small", Window::Total, Money::from_nanos(1_000))];
        let pays = pricing.subscriptions == Subscriptions::Charged;
        let config = Config {
            pricing,
            caps: if pays { vec![] } else { caps },
            ..Config::default()
        };
        Self::of(config).await
    }

    async fn of(config: Config) -> Self {
        let server = Replay::start().await;
        let world = World::start(&[&server.ca_pem], config);
        Self { server, world }
    }

    /// Makes a call of a million tokens in and none out; what the record says of it.
    async fn call(&self, model: &str, credential: &str) -> Arc<Record> {
        let usage = r#"{"input_tokens":1000000,"output_tokens":0}"#;
        let body = format!("{{\"model\":\"{model}\",\"max_tokens\":1,\"messages\":[]}}");
        let answer = format!("{{\"type\":\"message\",\"model\":\"{model}\",\"usage\":{usage}}}");
        let head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\n{credential}");
        self.ask("api.anthropic.com", &head, &body, &answer).await
    }

    /// Makes a call of Claude Opus 5.5 that is answered with that usage.
    async fn answered_with(&self, usage: &str) -> Arc<Record> {
        let model = r#""model":"claude-opus-5-5""#;
        let body = format!(r#"{{{model},"max_tokens":100,"messages":[]}}"#);
        let answer = format!(r#"{{"type":"message",{model},"usage":{usage}}}"#);
        let head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\n{KEY}");
        self.ask("api.anthropic.com", &head, &body, &answer).await
    }

    async fn ask(&self, host: &str, head: &str, body: &str, answer: &str) -> Arc<Record> {
        let mut client = self.world.http1(self.server.addr, host).await;
        client
            .send(format!(
                "{head}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let answered = async {
            self.server.answer(answer).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = client.message() => {}
            () = answered => {}
        }
        self.world.record().await
    }
}

const KEY: &str = "x-api-key: sk-ant-api03-0123456789";
const LOGIN: &str = "authorization: Bearer sk-ant-oat01-0123456789";

fn cents(cents: i64) -> Money {
    Money::from_nanos(cents * 10_000_000)
}

#[tokio::test]
async fn what_a_plan_pays_is_booked_apart_and_under_no_cap_of_money() {
    let scene = Scene::with(Pricing::default()).await;
    let record = scene.call("claude-opus-5-5", LOGIN).await;
    assert_eq!(record.outcome, Outcome::Completed);
    assert_eq!(record.identity.key_kind.as_deref(), Some("subscription"));
    assert_eq!(record.cost.notional(), Some(cents(400)));
    assert_eq!(scene.world.sidecar.summary().spend, Money::ZERO);
    assert_eq!(scene.world.stored()[0].cost_nanos, None);
    let record = scene.call("claude-opus-5-5", KEY).await;
    assert!(
        matches!(record.outcome, Outcome::Refused { .. }),
        "{record:?}"
    );
}

#[tokio::test]
async fn what_a_plan_pays_counts_where_the_configuration_says_so() {
    let scene = Scene::with(Pricing {
        subscriptions: Subscriptions::Charged,
        ..Pricing::default()
    })
    .await;
    let record = scene.call("claude-opus-5-5", LOGIN).await;
    assert_eq!(record.cost.spent(), cents(400));
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_where_that_is_wanted() {
    let scene = Scene::of(Config {
        pricing: Pricing {
            unpriced: Unpriced::Refuse,
            ..Pricing::default()
        },
        ..Config::default()
    })
    .await;
    let record = scene.call("claude-of-tomorrow", KEY).await;
    assert_eq!(
        (&record.outcome, record.status),
        (&Outcome::Denied, Some(402))
    );
    assert_eq!(record.reasons, ["unpriced"]);
    let refused = "weir_refused_calls_total{reason=\"unpriced\"}";
    assert_eq!(scene.world.metric(refused), 1);
    let record = scene.call("claude-opus-5-5", KEY).await;
    assert_eq!(record.outcome, Outcome::Completed);
    let record = scene.call("claude-of-tomorrow", LOGIN).await;
    assert_eq!(record.cost, Cost::Unpriced, "a plan needs no price");
}

#[tokio::test]
async fn a_model_without_a_price_counts_at_the_flat_price_that_is_configured() {
    let scene = Scene::of(Config {
        pricing: Pricing {
            unpriced: Unpriced::Flat {
                picos_per_token: 2_500_000,
            },
            ..Pricing::default()
        },
        ..Config::default()
    })
    .await;
    let record = scene.call("claude-of-tomorrow", KEY).await;
    let flat = Cost::Estimated {
        total: cents(250),
        version: "flat".to_owned(),
    };
    assert_eq!(record.cost, flat);
}

#[tokio::test]
async fn a_negotiated_price_is_charged_and_named_on_the_record() {
    let scene = Scene::of(Config {
        pricing: Pricing {
            negotiated: vec![Negotiated {
                model: "claude-opus-*".to_owned(),
                factor_ppm: Some(850_000),
                ..Negotiated::default()
            }],
            ..Pricing::default()
        },
        ..Config::default()
    })
    .await;
    let record = scene.call("claude-opus-5-5", KEY).await;
    let discounted = Cost::Priced {
        total: cents(340),
        version: "2026-11-22+negotiated".to_owned(),
    };
    assert_eq!(record.cost, discounted);
    assert_eq!(record.cost_by_list, Some(cents(400)));
}

#[tokio::test]
async fn a_list_that_is_imported_holds_in_a_process_that_runs() {
    let scene = Scene::of(Config::default()).await;
    let record = scene.call("claude-of-tomorrow", KEY).await;
    assert_eq!(record.cost, Cost::Unpriced);
    let directory = scene.world.state().join("prices");
    fs::create_dir_all(&directory).unwrap();
    let list = r#"{"version":"mine 1","models":[{"provider":"anthropic","id":"claude-of-tomorrow","match":[{"equals":"claude-of-tomorrow"}],"prices":[{"per_mtok":{"input":1,"output":2}}]}]}"#;
    fs::write(directory.join("new"), list).unwrap();
    fs::rename(directory.join("new"), directory.join("weir.json")).unwrap();
    let priced = Cost::Priced {
        total: cents(100),
        version: "mine 1".to_owned(),
    };
    let until = Instant::now() + PATIENCE;
    while scene.call("claude-of-tomorrow", KEY).await.cost != priced {
        assert!(Instant::now() < until, "the imported price is not used");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn usage_that_can_be_none_counts_as_what_was_reserved() {
    let scene = Scene::of(Config::default()).await;
    let expected = scene.answered_with("{}").await.cost.clone();
    assert!(expected.spent() > Money::ZERO && expected.spent() < cents(1));
    for input in [r#""100""#, "1.5", "-5", "10000000000000000000"] {
        let usage = format!(r#"{{"input_tokens":{input},"output_tokens":1}}"#);
        let record = scene.answered_with(&usage).await;
        assert_eq!(record.outcome, Outcome::Completed);
        assert_eq!((record.usage, &record.cost), (None, &expected), "{input}");
        assert_eq!(record.reasons, ["answer_unreadable"], "{input}");
        assert!(matches!(record.cost, Cost::Estimated { .. }), "{input}");
    }
}

#[tokio::test]
async fn what_a_provider_charges_is_compared_on_its_own_footing() {
    let scene = Scene::of(Config::default()).await;
    let head = "POST /api/v1/chat/completions HTTP/1.1\r\nhost: x";
    let body = r#"{"model":"anthropic/claude-opus-4.5","messages":[]}"#;
    // By list, 5 USD a million in, 25 out, a tenth of that read from the cache.
    for (cached, cost, charged, without_cache) in [
        (0, "1.5e-7", 150, 150),
        (0, "0.0123", 12_300_000, 12_300_000),
        (0, "0", 0, 0),
        // 3.9 of 7.5 thousandths of a dollar are charged at half the price.
        (800, "0.00195", 1_950_000, 3_750_000),
    ] {
        let answer = format!(
            r#"{{"model":"anthropic/claude-opus-4.5","choices":[],"usage":{{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{{"cached_tokens":{cached}}},"cost":{cost}}}}}"#
        );
        let record = scene.ask("openrouter.ai", head, body, &answer).await;
        let total = Money::from_nanos(charged);
        assert_eq!(record.cost, Cost::Reported { total });
        let by_list = if cached == 0 { 7_500_000 } else { 3_900_000 };
        assert_eq!(record.cost_by_list, Some(Money::from_nanos(by_list)));
        let without = record.cost_without_cache.map(Money::nanos);
        assert_eq!(without, Some(without_cache), "{cost}");
        let perfect = record.cost_perfect_cache.unwrap_or(Money::MAX);
        assert!(perfect <= total, "{perfect} of {total}");
        let of_input = record.cost_of_input.unwrap_or(Money::MAX);
        assert!(of_input <= total, "{of_input} of {total}");
    }
}

#[tokio::test]
async fn passes_of_a_dearer_model_are_no_loss_by_the_cache() {
    let scene = Scene::of(Config::default()).await;
    let passes = r#"{"type":"message","input_tokens":1000,"output_tokens":100},{"type":"advisor_message","model":"claude-fable-5-2","input_tokens":2000,"output_tokens":200}"#;
    let usage = format!(r#"{{"input_tokens":1000,"output_tokens":100,"iterations":[{passes}]}}"#);
    let record = scene.answered_with(&usage).await;
    let of_one_pass = r#"{"input_tokens":3000,"output_tokens":300}"#;
    let cheaper = scene.answered_with(of_one_pass).await;
    assert!(record.cost.spent() > cheaper.cost.spent());
    assert_eq!(record.cost_without_cache, Some(record.cost.spent()));
    assert_eq!(record.cost_perfect_cache, Some(record.cost.spent()));
    assert_eq!(record.usage, cheaper.usage);
}
