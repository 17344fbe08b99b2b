//! Usage that is told later: batches, responses in the background, what a gateway charged. Each is
//! counted once, however often it is asked for, also after a restart.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use weir::ledger::{Cost, Outcome, Record};
use weir::process::config::{Cap, Config, Window};
use weir_core::money::Money;
use weir_tests::{Wire, World};

use crate::replay::Replay;

const ANTHROPIC: &str = "api.anthropic.com";
const OPENAI: &str = "api.openai.com";
/// Where only those with a plan call.
const CHATGPT: &str = "chatgpt.com";
const OPENROUTER: &str = "openrouter.ai";

/// A cap that nothing here reaches, so that what is spent can be seen.
fn config() -> Config {
    let limit = Money::from_nanos(1_000_000_000_000);
    Config {
        caps: vec![Cap::new("all", Window::Total, limit)],
        ..Config::default()
    }
}

async fn started() -> (Replay, World) {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], config());
    (server, world)
}

async fn restarted(server: &Replay, world: World) -> World {
    World::continued(world.stop().await, &[&server.ca_pem], config())
}

fn answer(content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks, and has the whole answer passed on.
async fn ask(server: &Replay, world: &World, host: &str, request: &str, answer: &str) {
    let mut client = world.http1(server.addr, host).await;
    client.send(request).await;
    server.answer(answer).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(client.message().await.body, body.as_bytes());
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

fn post(host: &str, path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn spent(world: &World) -> String {
    let spent = world.sidecar.status()["caps"][0]["spent"].clone();
    spent
        .as_str()
        .map_or_else(|| "$0".to_owned(), str::to_owned)
}

fn costs_nothing(record: &Record) {
    assert_eq!((record.usage, record.cost.spent()), (None, Money::ZERO));
}

fn message(custom_id: &str, model: &str, input: u64, output: u64) -> String {
    let usage = json!({ "input_tokens": input, "output_tokens": output, "service_tier": "batch" });
    let message = json!({ "id": "msg_1", "type": "message", "model": model, "usage": usage });
    let result = json!({ "type": "succeeded", "message": message });
    format!("{}\n", json!({ "custom_id": custom_id, "result": result }))
}

#[tokio::test]
async fn results_of_a_batch_are_priced_by_their_models_and_counted_once() {
    let (server, world) = started().await;
    let request = get(ANTHROPIC, "/v1/messages/batches/msgbatch_1/results");
    let first = message("a", "claude-haiku-4-5", 1000, 100);
    let second = message("b", "claude-opus-4-5", 1000, 100);
    let whole = answer("application/x-jsonl", &[first.clone(), second].concat());
    // The first time it breaks off within the second line.
    let (begun, _) = whole.split_at(whole.len() - 40);
    let begun = begun.replacen("OK\r\n", "OK\r\nconnection: close\r\n", 1);
    let mut client = world.http1(server.addr, ANTHROPIC).await;
    client.send(&request).await;
    server.answer(begun).await;
    client.rest().await;
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::Truncated);
    assert_eq!(record.model_requested.as_deref(), Some("claude-haiku-4-5"));
    // Half of 1 and 5 USD a million.
    assert_eq!(record.cost.spent(), Money::from_nanos(500_000 + 250_000));
    ask(&server, &world, ANTHROPIC, &request, &whole).await;
    let record = world.record().await;
    assert_eq!(record.path_class, "batches");
    assert_eq!(record.model_requested.as_deref(), Some("claude-opus-4-5"));
    assert_eq!(record.usage.unwrap().input, 1000);
    // Half of 5 and 25 USD a million.
    assert_eq!(
        record.cost.spent(),
        Money::from_nanos(2_500_000 + 1_250_000)
    );
    assert!(matches!(record.cost, Cost::Priced { .. }));
    ask(&server, &world, ANTHROPIC, &request, &whole).await;
    costs_nothing(&*world.record().await);
    assert_eq!(spent(&world), "$0.0045");
    let world = restarted(&server, world).await;
    assert_eq!(spent(&world), "$0.0045");
    ask(&server, &world, ANTHROPIC, &request, &whole).await;
    costs_nothing(&*world.record().await);
    // The same name in another batch is another call.
    let other = get(ANTHROPIC, "/v1/messages/batches/msgbatch_2/results");
    ask(
        &server,
        &world,
        ANTHROPIC,
        &other,
        &answer("application/binary", &first),
    )
    .await;
    assert_eq!(
        world.record().await.cost.spent(),
        Money::from_nanos(750_000)
    );
}

#[tokio::test]
async fn each_result_of_a_batch_is_priced_by_where_it_was_inferred() {
    let (server, world) = started().await;
    let request = get(ANTHROPIC, "/v1/messages/batches/msgbatch_1/results");
    let us = "\"inference_geo\":\"us\",\"input_tokens\"";
    let lines = [
        message("a", "claude-opus-5-5", 1000, 100).replacen("\"input_tokens\"", us, 1),
        message("b", "claude-opus-5-5", 1000, 100),
    ];
    let whole = answer("application/x-jsonl", &lines.concat());
    ask(&server, &world, ANTHROPIC, &request, &whole).await;
    // Half of 4 and 20 USD a million, and a tenth more for the first.
    let record = world.record().await;
    assert_eq!(
        record.cost.spent(),
        Money::from_nanos(3_300_000 + 3_000_000)
    );
}

#[tokio::test]
async fn the_output_file_of_a_batch_is_priced_and_another_file_costs_nothing() {
    let (server, world) = started().await;
    let line = |id: &str, body: Value| {
        let response = json!({ "status_code": 200, "request_id": "req_1", "body": body });
        let line =
            json!({ "id": "batch_req_1", "custom_id": id, "response": response, "error": null });
        format!("{line}\n")
    };
    let file = [
        line(
            "a",
            json!({ "object": "chat.completion", "model": "gpt-6-sol", "choices": [],
            "usage": { "prompt_tokens": 2000, "completion_tokens": 10 } }),
        ),
        line(
            "b",
            json!({ "object": "chat.completion", "model": "nobody-knows-this", "choices": [],
            "usage": { "prompt_tokens": 2000, "completion_tokens": 10 } }),
        ),
    ]
    .concat();
    let request = get(OPENAI, "/v1/files/file-1/content");
    let whole = answer("application/octet-stream", &file);
    ask(&server, &world, OPENAI, &request, &whole).await;
    let record = world.record().await;
    assert_eq!(record.usage.unwrap().input, 4000);
    // Half of 2 and 10 USD a million; of the other model nothing is known.
    assert_eq!(record.cost.spent(), Money::from_nanos(2_000_000 + 50_000));
    assert_eq!(record.reasons, ["several_models", "results_without_price"]);
    ask(&server, &world, OPENAI, &request, &whole).await;
    costs_nothing(&*world.record().await);
    let other = get(OPENAI, "/v1/files/file-2/content");
    let text = answer(
        "text/plain",
        "{\"custom_id\":\"a\",\"body\":{}}\nno JSON at all",
    );
    ask(&server, &world, OPENAI, &other, &text).await;
    costs_nothing(&*world.record().await);
}

fn response(status: &str) -> Value {
    let usage = json!({ "input_tokens": 2000, "output_tokens": 10, "total_tokens": 2010 });
    let done = !matches!(status, "queued" | "in_progress");
    json!({
        "id": "resp_1", "object": "response", "background": true, "status": status, "model": "gpt-6-sol",
        "output": [], "error": null, "usage": if done { usage } else { Value::Null },
    })
}

/// 2000 tokens at 2 USD a million, 10 at 10.
const COST: i64 = 4_000_000 + 100_000;

async fn made_in_background(server: &Replay, world: &World) {
    let body = json!({ "model": "gpt-6-sol", "input": "How high?", "background": true });
    let request = post(OPENAI, "/v1/responses", &body);
    let queued = answer("application/json", &response("queued").to_string());
    ask(server, world, OPENAI, &request, &queued).await;
    world.no_more_records().await;
}

async fn retrieved(server: &Replay, world: &World, status: &str) {
    let request = get(OPENAI, "/v1/responses/resp_1");
    let answer = answer("application/json", &response(status).to_string());
    ask(server, world, OPENAI, &request, &answer).await;
}

#[tokio::test]
async fn a_response_in_the_background_is_counted_when_it_is_told() {
    let (server, world) = started().await;
    made_in_background(&server, &world).await;
    retrieved(&server, &world, "in_progress").await;
    costs_nothing(&*world.record().await);
    assert_eq!(world.metric("weir_calls_in_flight"), 0);
    retrieved(&server, &world, "completed").await;
    let call = world.record().await;
    assert_eq!(
        (call.api.as_str(), call.method.as_str()),
        ("responses", "POST")
    );
    assert_eq!(call.outcome, Outcome::Completed);
    assert_eq!(call.usage.unwrap().output, 10);
    assert_eq!(call.cost.spent(), Money::from_nanos(COST));
    costs_nothing(&*world.record().await);
    retrieved(&server, &world, "completed").await;
    costs_nothing(&*world.record().await);
    assert_eq!(spent(&world), "$0.0041");
    let world = restarted(&server, world).await;
    retrieved(&server, &world, "completed").await;
    costs_nothing(&*world.record().await);
    assert_eq!(spent(&world), "$0.0041");
}

#[tokio::test]
async fn a_stream_in_the_background_that_was_cut_is_told_by_the_one_that_goes_on() {
    let (server, world) = started().await;
    let body =
        json!({ "model": "gpt-6-sol", "input": "How high?", "background": true, "stream": true });
    let event = |kind: &str, status: &str| {
        let data = json!({ "type": kind, "response": response(status) });
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"two\"}\n\n";
    let begun = [&event("response.created", "queued"), delta].concat();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let mut client = world.http1(server.addr, OPENAI).await;
    client.send(post(OPENAI, "/v1/responses", &body)).await;
    server.answer([head, &begun].concat()).await;
    client.rest().await;
    world.no_more_records().await;
    let request = get(OPENAI, "/v1/responses/resp_1?stream=true&starting_after=1");
    let rest = answer(
        "text/event-stream",
        &event("response.completed", "completed"),
    );
    for is_first in [true, false] {
        ask(&server, &world, OPENAI, &request, &rest).await;
        if is_first {
            let call = world.record().await;
            assert_eq!(
                (call.method.as_str(), call.outcome.clone()),
                ("POST", Outcome::Completed)
            );
            assert_eq!(call.cost.spent(), Money::from_nanos(COST));
        }
        costs_nothing(&*world.record().await);
    }
}

#[tokio::test]
async fn a_response_in_the_background_that_nobody_asks_for_counts_as_reserved() {
    let (server, world) = started().await;
    made_in_background(&server, &world).await;
    let reserved = world.sidecar.status()["caps"][0]["reserved"].clone();
    assert_ne!(reserved, "$0");
    let world = restarted(&server, world).await;
    assert_eq!(spent(&world), reserved.as_str().unwrap());
    assert_eq!(world.stored().last().unwrap().cost_state, "estimated");
    retrieved(&server, &world, "completed").await;
    costs_nothing(&*world.record().await);
}

#[tokio::test]
async fn a_response_that_another_made_is_in_the_record_of_who_asks() {
    let (server, world) = started().await;
    for is_first in [true, false] {
        retrieved(&server, &world, "completed").await;
        let record = world.record().await;
        if is_first {
            assert_eq!(record.usage.unwrap().input, 2000);
            assert_eq!(record.cost.spent(), Money::from_nanos(COST));
        } else {
            costs_nothing(&record);
        }
    }
    // What was not made in the background told its usage when it was made.
    let mut made = response("completed");
    made["background"] = false.into();
    made["id"] = "resp_2".into();
    let request = get(OPENAI, "/v1/responses/resp_2");
    ask(
        &server,
        &world,
        OPENAI,
        &request,
        &answer("application/json", &made.to_string()),
    )
    .await;
    costs_nothing(&*world.record().await);
}

async fn cut_stream(server: &Replay, client: &mut Wire<TlsStream<TcpStream>>) {
    let body = json!({ "model": "openai/gpt-6-sol", "messages": [], "stream": true });
    client
        .send(post(OPENROUTER, "/api/v1/chat/completions", &body))
        .await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let chunk = json!({ "id": "gen-1", "model": "openai/gpt-6-sol", "choices": [{ "delta": { "content": "two" } }] });
    server.answer(format!("{head}data: {chunk}\n\n")).await;
    client.rest().await;
}

#[tokio::test]
async fn a_generation_corrects_what_a_cut_stream_was_estimated_at() {
    let (server, world) = started().await;
    let request = get(OPENROUTER, "/api/v1/generation?id=gen-1");
    let told = json!({ "data": { "id": "gen-1", "model": "openai/gpt-6-sol", "total_cost": 0.002,
        "native_tokens_prompt": 9, "native_tokens_completion": 190 } });
    let told = answer("application/json", &told.to_string());
    ask(&server, &world, OPENROUTER, &request, &told).await;
    costs_nothing(&*world.record().await);
    let mut client = world.http1(server.addr, OPENROUTER).await;
    cut_stream(&server, &mut client).await;
    let call = world.record().await;
    assert!(matches!(call.cost, Cost::Estimated { .. }), "{call:?}");
    assert!(call.cost.spent() > Money::ZERO);
    ask(&server, &world, OPENROUTER, &request, &told).await;
    let correction = world.record().await;
    assert_eq!(
        call.cost.spent() + correction.cost.spent(),
        Money::from_nanos(2_000_000)
    );
    ask(&server, &world, OPENROUTER, &request, &told).await;
    costs_nothing(&*world.record().await);
    assert_eq!(spent(&world), "$0.002");
}

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

fn event(kind: &str, status: &str) -> String {
    let data = json!({ "type": kind, "response": response(status) });
    format!("event: {kind}\ndata: {data}\n\n")
}

#[tokio::test]
async fn a_response_that_was_told_before_its_own_stream_had_ended_is_counted_once() {
    let (server, world) = started().await;
    let body =
        json!({ "model": "gpt-6-sol", "input": "How high?", "background": true, "stream": true });
    // Its connection hangs, and the application asks on another one how it went on.
    let mut hanging = world.http1(server.addr, OPENAI).await;
    hanging.send(post(OPENAI, "/v1/responses", &body)).await;
    let begun = event("response.created", "queued");
    server.answer([STREAM_HEAD, &begun].concat()).await;
    hanging.until(begun.as_bytes()).await;
    let request = get(OPENAI, "/v1/responses/resp_1?stream=true&starting_after=1");
    let rest = answer(
        "text/event-stream",
        &event("response.completed", "completed"),
    );
    ask(&server, &world, OPENAI, &request, &rest).await;
    let told = world.record().await;
    assert_eq!(
        (told.method.as_str(), told.cost.spent()),
        ("GET", Money::from_nanos(COST))
    );
    drop(hanging);
    let call = world.record().await;
    assert_eq!(call.outcome, Outcome::ClientGone);
    assert_eq!(call.reasons, ["told_before"]);
    costs_nothing(&call);
    // As little one whose answer comes late and whole.
    let request = post(OPENAI, "/v1/responses", &body);
    ask(&server, &world, OPENAI, &request, &rest).await;
    let call = world.record().await;
    assert_eq!(call.reasons, ["told_before"]);
    costs_nothing(&call);
    let status = world.sidecar.status();
    assert_eq!(status["caps"][0]["reserved"], "$0.00");
    assert_eq!(spent(&world), "$0.0041");
}

async fn cancelled(server: &Replay, world: &World) -> std::sync::Arc<Record> {
    let mut told = response("cancelled");
    told["usage"] = Value::Null;
    let request = post(OPENAI, "/v1/responses/resp_1/cancel", &json!({}));
    let told = answer("application/json", &told.to_string());
    ask(server, world, OPENAI, &request, &told).await;
    let call = world.record().await;
    costs_nothing(&*world.record().await);
    call
}

#[tokio::test]
async fn a_response_that_was_cancelled_counts_what_was_seen_of_it_else_what_was_reserved() {
    let (server, world) = started().await;
    made_in_background(&server, &world).await;
    let reserved = world.sidecar.status()["caps"][0]["reserved"].clone();
    let call = cancelled(&server, &world).await;
    assert_eq!(call.reasons, ["usage_not_told"]);
    assert!(matches!(call.cost, Cost::Estimated { .. }), "{call:?}");
    assert_eq!(spent(&world), reserved.as_str().unwrap());
    let (server, world) = started().await;
    let body =
        json!({ "model": "gpt-6-sol", "input": "How high?", "background": true, "stream": true });
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"two\"}\n\n";
    let begun = [&event("response.created", "queued"), delta].concat();
    let mut client = world.http1(server.addr, OPENAI).await;
    client.send(post(OPENAI, "/v1/responses", &body)).await;
    let head = STREAM_HEAD.replace("OK\r\n", "OK\r\nConnection: close\r\n");
    server.answer([head, begun].concat()).await;
    client.rest().await;
    let call = cancelled(&server, &world).await;
    assert!(matches!(call.cost, Cost::Estimated { .. }), "{call:?}");
    // Some tokens of prompt at 2 USD a million, and one of output at 10.
    let nanos = call.cost.spent().nanos();
    assert!((10_000..200_000).contains(&nanos), "{call:?}");
}

#[tokio::test]
async fn a_response_in_the_background_is_priced_by_who_pays_and_tells_how_long_its_prompt_is() {
    let (server, world) = started().await;
    // A token is about a word here: some 2000.
    let prompt = "high ".repeat(2000);
    let body = json!({ "model": "gpt-6-sol", "input": prompt, "background": true });
    let queued = answer("application/json", &response("queued").to_string());
    let path = "/backend-api/codex/responses";
    let login = "authorization: Bearer made-up-login\r\ncontent-length";
    let request = post(CHATGPT, path, &body).replacen("content-length", login, 1);
    ask(&server, &world, CHATGPT, &request, &queued).await;
    world.no_more_records().await;
    retrieved(&server, &world, "completed").await;
    let call = world.record().await;
    assert_eq!(call.identity.key_kind.as_deref(), Some("subscription"));
    assert_eq!(call.cost.notional(), Some(Money::from_nanos(COST)));
    assert_eq!(world.sidecar.summary().spend, Money::ZERO);
    assert_eq!(world.metric("weir_prompt_estimate_ratio_count"), 1);
    assert_eq!(
        world.metric("weir_prompt_estimate_ratio_bucket{le=\"0.5\"}"),
        0
    );
}
