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
        let mut client = self
            .world
            .http1(self.server.addr, "api.anthropic.com")
            .await;
        let body = format!("{{\"model\":\"{model}\",\"max_tokens\":1,\"messages\":[]}}");
        client
            .send(format!(
                "POST /v1/messages HTTP/1.1\r\nhost: x\r\n{credential}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        let answer = format!(
            "{{\"type\":\"message\",\"model\":\"{model}\",\"usage\":{{\"input_tokens\":1000000,\"output_tokens\":0}}}}"
        );
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
