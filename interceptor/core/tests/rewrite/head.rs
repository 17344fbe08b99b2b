//! What is remembered of tools and system prompts: it changes nothing of what is found out.

use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use weir_core::api::Api;
use weir_core::prompt::{self, Prompt};
use weir_core::rewrite::{
    self, HEADS_BYTES_MAX, Head, Heads, Plan, Prefixes, Recent, Request, RuleSet, Thread,
};
use weir_core::volatile::learned::{Learned, Observed, Prompts};

use super::{KEY, compiled};

/// Plans a call with what is remembered of its head, which gives what it gives without.
pub(super) fn remembered(
    heads: &Mutex<Heads>,
    request: &Request<'_>,
    current: &RuleSet,
    plan: impl Fn(&Request<'_>) -> Plan,
) -> Plan {
    let head = head_of(heads, request, current);
    let with = Request {
        head: Some(&head),
        ..*request
    };
    let (with, fresh) = (plan(&with), plan(request));
    let shown = |plan: &Plan| {
        let (why, tree) = (plan.withheld, plan.tree.clone());
        let (edits, spans) = (plan.edits.clone(), plan.spans.clone());
        (edits, spans, plan.applied, plan.began, why, tree)
    };
    assert_eq!(shown(&with), shown(&fresh));
    with
}

fn head_of(heads: &Mutex<Heads>, request: &Request<'_>, current: &RuleSet) -> Arc<Head> {
    let name = Head::name(request, current.id);
    let mut heads = heads.lock().unwrap();
    heads.get(name).unwrap_or_else(|| {
        let head = Arc::new(Head::read(request, &current.rules));
        heads.keep(name, Arc::clone(&head));
        head
    })
}

/// A call of which nothing is remembered.
fn request<'a>(
    (body, prompt, thread): (&'a str, &'a Prompt, &'a Thread),
    untouchable: Option<usize>,
    now_s: i64,
) -> Request<'a> {
    Request {
        api: Api::Messages,
        model: "m",
        body: body.as_bytes(),
        prompt,
        thread,
        key: &KEY,
        untouchable,
        head: None,
        held_by_provider: false,
        begin: true,
        now_s,
    }
}

/// All that is found out about a call, with or without what is remembered.
struct Findings {
    prompts: Prompts,
    recent: Recent,
    heads: Option<Mutex<Heads>>,
}

impl Findings {
    fn of(
        &mut self,
        body: &str,
        skip: Option<usize>,
        now_s: i64,
    ) -> impl PartialEq + std::fmt::Debug {
        let current = compiled("");
        let prompt = prompt::read(body.as_bytes()).unwrap();
        let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[b"caller"]).unwrap();
        let request = request((body, &prompt, &thread), skip, now_s);
        let head = self.heads.as_ref();
        let head = head.map(|heads| head_of(heads, &request, &current));
        let request = Request {
            head: head.as_deref(),
            ..request
        };
        let plan = rewrite::plan(&request, None, &current, |_| None);
        let known = plan.spans.clone();
        let units = request.units(&known);
        let observed = Observed {
            conversation: thread.first.at,
            is_start: thread.is_start,
            now_s,
        };
        let news = self.prompts.observe(&units, &observed);
        let learned = self.prompts.learned(&units, now_s);
        let names: Vec<String> = learned.iter().map(Learned::name).collect();
        let rule = current.rules.learned().unwrap();
        let values = units.find(&learned, rule);
        // As it is sent, and as it came.
        let edited = Prefixes::of(&request, &plan.edits, &[b"edited"]);
        let plain = Prefixes::of(&request, &[], &[b"plain"]);
        let warm = [edited, plain].map(|prefixes| self.recent.note(&prefixes, now_s));
        let all: Vec<_> = known.iter().chain(&values).cloned().collect();
        let family = [request.family(&known), request.family(&all)];
        (
            plan.edits, plan.tree, known, news, names, values, warm, family,
        )
    }
}

/// A body, and the segment that nobody may touch.
fn body(
    system: &[String],
    tools: &[u8],
    marked: bool,
    turns: usize,
    billing: bool,
) -> (String, Option<usize>) {
    let mut blocks: Vec<Value> = Vec::new();
    if billing {
        blocks.push(
            json!({ "type": "text", "text": format!("x-anthropic-billing-header: cch={turns};") }),
        );
    }
    blocks.push(json!({ "type": "text", "text": system.join("\n") }));
    if marked && let Some(last) = blocks.last_mut() {
        last["cache_control"] = json!({ "type": "ephemeral" });
    }
    let tools: Vec<Value> = tools
        .iter()
        .map(|tool| json!({ "name": format!("t{tool}"), "description": "As of 2026-06-17: reads.", "input_schema": {} }))
        .collect();
    let mut messages = vec![json!({ "role": "user", "content": "Begin." })];
    for turn in 0..turns {
        messages.push(json!({ "role": "assistant", "content": format!("step {turn}") }));
        messages.push(json!({ "role": "user", "content": [{ "type": "text", "text": "Go on." }] }));
    }
    let skip = billing.then_some(tools.len());
    let body = json!({ "tools": tools, "system": blocks, "messages": messages });
    (body.to_string(), skip)
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("You are an agent; say what you do.".to_owned()),
        Just("Stop where it works. Write down what is open.".to_owned()),
        (0..4).prop_map(|day| format!("Today's date: 2026-06-1{day}")),
        (0..4).prop_map(|n| format!("Build: k{n}x9")),
        (0..3).prop_map(|n| format!("Working directory: /srv/app-{n} \"ü\"")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_remembered_is_what_is_found_anew(
        calls in vec((vec(line(), 1..5), vec(0..3_u8, 0..3), any::<bool>(), 0..3_usize, any::<bool>()), 1..12),
        again in vec(0..12_usize, 12),
    ) {
        let known = |heads| Findings { prompts: Prompts::default(), recent: Recent::default(), heads };
        let (mut fresh, mut with) = (known(None), known(Some(Mutex::default())));
        let repeated = again.iter().filter_map(|at| calls.get(*at));
        for (now_s, (system, tools, marked, turns, billing)) in (0..).zip(calls.iter().chain(repeated)) {
            let (body, skip) = body(system, tools, *marked, *turns, *billing);
            prop_assert_eq!(with.of(&body, skip, now_s), fresh.of(&body, skip, now_s));
        }
    }
}

#[test]
fn a_head_is_read_once_for_all_that_have_the_same_and_memory_is_bounded() {
    let current = compiled("");
    let mut heads = Heads::default();
    let read = |heads: &mut Heads, system: &str, turns: usize| {
        let (body, skip) = body(&[system.to_owned()], &[1, 2], true, turns, true);
        let prompt = prompt::read(body.as_bytes()).unwrap();
        let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[]).unwrap();
        let request = request((&body, &prompt, &thread), skip, 0);
        let name = Head::name(&request, current.id);
        let known = heads.get(name);
        let is_known = known.is_some();
        let head = known.unwrap_or_else(|| Arc::new(Head::read(&request, &current.rules)));
        // What is read later counts as well, and what is kept again counts once.
        heads.keep(name, Arc::clone(&head));
        let with = Request {
            head: Some(&head),
            ..request
        };
        let _units = with.units(&rewrite::plan(&with, None, &current, |_| None).spans);
        for _ in 0..100 {
            heads.keep(name, Arc::clone(&head));
        }
        is_known
    };
    assert!(!read(&mut heads, "Today's date: 2026-06-17", 0));
    // Another turn, and another billing header, which is taken out by its place.
    assert!(read(&mut heads, "Today's date: 2026-06-17", 1));
    assert!(!read(&mut heads, "Today's date: 2026-06-18", 1));
    let long = "A line of the manual.\n".repeat(3000);
    for number in 0..100 {
        assert!(!read(&mut heads, &format!("{number}: {long}"), 0));
        assert!(heads.bytes() <= 2 * HEADS_BYTES_MAX, "{}", heads.bytes());
    }
    assert!(heads.bytes() > HEADS_BYTES_MAX / 2, "{}", heads.bytes());
    assert!(read(&mut heads, &format!("99: {long}"), 0));
    assert!(
        !read(&mut heads, "Today's date: 2026-06-17", 0),
        "forgotten"
    );
}
