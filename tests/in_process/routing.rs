//! What helps a provider to find a prompt in its cache, through a whole sidecar: where a call is routed
//! to, and markers as its provider takes them.

use weir::process::config::CacheMode;
use weir_tests::{Scripted, World};

use crate::rewrite::config;

const OPENROUTER: &str = "openrouter.ai";
const OPENAI: &str = "api.openai.com";
const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
const CHAT: &str = "/v1/chat/completions";

/// A server behind a sidecar that rewrites.
struct Scene {
    server: Scripted,
    world: World,
}

impl Scene {
    async fn start() -> Self {
        let server = Scripted::http1().await;
        let world = World::start(&[&server.ca_pem], config(CacheMode::Rewrite, ""));
        Self { server, world }
    }

    /// What arrives of a body, and the rules of the edits in its record.
    async fn arrives(&self, host: &str, path: &str, body: &str) -> (String, Vec<String>) {
        let mut client = self.world.http1(self.server.addr, host).await;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        client.send(format!("{head}{body}")).await;
        let mut upstream = self.server.accept().await;
        let came = upstream.message().await;
        upstream
            .send(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
            )
            .await;
        assert_eq!(client.message().await.body, b"{}");
        let record = self.world.record().await;
        let rules = record.edits.iter().map(|edit| edit.rule.clone()).collect();
        (String::from_utf8(came.body).unwrap(), rules)
    }
}

/// Longer than the minimum of any model.
fn manual() -> String {
    "Say what you do before you do it, in one sentence. ".repeat(500)
}

fn chat(first: &str, system: &str, last: &str) -> String {
    format!(
        r#"{{{first}"model":"gpt-6-sol","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"hi"}}]{last}}}"#
    )
}

#[tokio::test]
async fn an_order_of_providers_that_switches_sticky_routing_off_is_taken_out() {
    let scene = Scene::start().await;
    for (came, expected) in [
        (
            r#"{"order":["anthropic"],"data_collection":"deny"}"#,
            r#"{"data_collection":"deny"}"#,
        ),
        (
            r#"{"data_collection":"deny","order":["anthropic"]}"#,
            r#"{"data_collection":"deny"}"#,
        ),
        // What it restricts the call to stays.
        (
            r#"{"order":["anthropic"],"allow_fallbacks":false}"#,
            r#"{"only":["anthropic"],"allow_fallbacks":false}"#,
        ),
    ] {
        let body = |provider: &str| chat("", &manual(), &format!(r#","provider":{provider}"#));
        let path = "/api/v1/chat/completions";
        let (sent, rules) = scene.arrives(OPENROUTER, path, &body(came)).await;
        assert_eq!(sent, body(expected), "{came}");
        assert_eq!(rules, ["provider-order"], "{came}");
        // Nobody else has such a member, or another meaning of it.
        let own_key = r#""prompt_cache_key":"mine","#;
        let elsewhere = chat(own_key, &manual(), &format!(r#","provider":{came}"#));
        let (sent, rules) = scene.arrives(OPENAI, CHAT, &elsewhere).await;
        assert_eq!((sent, rules), (elsewhere, Vec::new()));
    }
}

/// The key that Weir gave a call, which is all that it edited.
async fn key(scene: &Scene, path: &str, body: &str) -> String {
    let (sent, rules) = scene.arrives(OPENAI, path, body).await;
    assert_eq!(rules, ["prompt-cache-key"], "{sent}");
    let rest = sent.strip_prefix(r#"{"prompt_cache_key":""#).unwrap();
    let (key, rest) = rest.split_once(r#"","#).unwrap();
    assert_eq!(format!("{{{rest}"), body, "and nothing else");
    key.to_owned()
}

#[tokio::test]
async fn calls_with_one_prompt_get_one_cache_key_and_a_key_of_the_application_stays() {
    let scene = Scene::start().await;
    let first = chat("", &manual(), "");
    let one = key(&scene, CHAT, &first).await;
    assert!(one.starts_with("weir-") && one.len() == 21, "{one}");
    let other_words = first.replace(r#""hi""#, r#""hello""#);
    assert_eq!(key(&scene, CHAT, &other_words).await, one);
    let other_prompt = chat("", &format!("Be brief. {}", manual()), "");
    assert_ne!(key(&scene, CHAT, &other_prompt).await, one);
    let responses = format!(
        r#"{{"model":"gpt-6-sol","instructions":"{}","input":"hi"}}"#,
        manual()
    );
    key(&scene, "/v1/responses", &responses).await;

    let own = chat(r#""prompt_cache_key":"mine","#, &manual(), "");
    let (sent, rules) = scene.arrives(OPENAI, CHAT, &own).await;
    assert_eq!((sent, rules), (own, Vec::new()));
}

#[tokio::test]
async fn a_marker_of_the_whole_call_becomes_one_of_a_block_where_the_provider_refuses_it() {
    let scene = Scene::start().await;
    let marker = r#""cache_control":{"type":"ephemeral"}"#;
    let body = |top: &str, block: &str| {
        let (manual, version) = (manual(), "bedrock-2023-05-31");
        format!(
            r#"{{"anthropic_version":"{version}","max_tokens":10{top},"system":[{{"type":"text","text":"{manual}"{block}}}],"messages":[{{"role":"user","content":"hi"}}]}}"#
        )
    };
    let marker = format!(",{marker}");
    let path = "/model/anthropic.claude-opus-5-5-v1:0/invoke";
    let (sent, rules) = scene.arrives(BEDROCK, path, &body(&marker, "")).await;
    assert_eq!(sent, body("", &marker));
    assert_eq!(rules, ["cache-breakpoint", "cache-breakpoint"]);
    // Anthropic itself takes it.
    let body = body(&marker, "").replace(
        r#""anthropic_version":"bedrock-2023-05-31""#,
        r#""model":"claude-opus-5-5""#,
    );
    let (sent, _) = scene
        .arrives("api.anthropic.com", "/v1/messages", &body)
        .await;
    assert!(sent.contains(&format!("10{marker}")), "{sent}");
}
