//! How long it takes to analyse and rewrite a request: `cargo bench -p weir-core --bench rewrite`.
//! Prints the best of many rounds for bodies of an agent of several sizes, and what a set of rules
//! takes to build.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use weir_core::api::Api;
use weir_core::edit;
use weir_core::prompt::{self, HashKey};
use weir_core::rewrite::{self, Plan, Request, RuleSet, Thread, Tree};
use weir_core::volatile::Rules;
use weir_core::volatile::learned::{Observed, Prompts, Units};

const KEY: HashKey = HashKey::new([1; 16]);
const OBSERVED: Observed = Observed {
    conversation: 1,
    is_start: false,
    now_s: 0,
};

fn main() {
    let start = Instant::now();
    let rules = RuleSet::new(Rules::builtin().unwrap(), &KEY);
    println!(
        "rules built in {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    for (turns, system) in [(12, 200), (120, 200), (480, 200), (120, 2000)] {
        let first = body(0, system, "2026-06-17");
        let tree = plan(&first, None, &rules).tree.unwrap();
        let same = body(turns, system, "2026-06-17");
        let other = body(turns, system, "2026-06-18");
        let megabytes = same.len() as f64 / 1e6;
        println!(
            "body of {megabytes:.2} MB, system prompt of {} kB",
            system * 60 / 1000
        );
        let show = |what: &str, time: Duration| {
            let time = time.as_secs_f64() * 1e3;
            println!(
                "  {what:<24} {time:>7.3} ms {:>7.3} ms/MB",
                time / megabytes
            );
        };
        show(
            "prompt::read",
            best(|| prompt::read(black_box(same.as_bytes()))),
        );
        let read = prompt::read(same.as_bytes()).unwrap();
        show(
            "fingerprints",
            best(|| read.fingerprints(black_box(same.as_bytes()), &KEY)),
        );
        show(
            "histories",
            best(|| read.histories(black_box(same.as_bytes()), &KEY, 0)),
        );
        show(
            "rules",
            best(|| rules.rules.find(black_box(same.as_bytes()), &read, None)),
        );
        let known = rules.rules.find(same.as_bytes(), &read, None);
        let units = || Units::of(black_box(same.as_bytes()), &read, None, &known, &KEY);
        show("units", best(units));
        let mut prompts = Prompts::default();
        show(
            "units, and learning",
            best(|| {
                prompts.observe(&units(), &OBSERVED);
            }),
        );
        show(
            "all, nothing new",
            best(|| rewritten(black_box(&same), Some(&tree), &rules)),
        );
        show(
            "all, a new value",
            best(|| rewritten(black_box(&other), Some(&tree), &rules)),
        );
    }
    for alike in [1, 100, 1000] {
        remembered(alike, &rules);
    }
}

/// A turn of one of many conversations that begin with the same message, each with another value, and
/// what keeping their tree takes.
fn remembered(alike: usize, rules: &RuleSet) {
    let date = |number: usize| format!("{}-06-17", 1000 + number);
    let began = |tree: Tree, number| {
        let plan = plan(&body(0, 20, &date(number)), Some(&tree), rules);
        plan.tree.unwrap_or(tree)
    };
    let tree = (0..alike).fold(Tree::default(), began);
    let turn = body(1, 20, &date(alike / 2));
    let json = serde_json::to_vec(&tree).unwrap();
    println!("{alike} that began alike: {} kB of JSON", json.len() / 1000);
    let show = |what: &str, time: Duration| {
        println!("  {what:<24} {:>9.1} us", time.as_secs_f64() * 1e6);
    };
    show("a turn", best(|| plan(&turn, Some(&tree), rules)));
    let written = || serde_json::to_vec(black_box(&tree)).unwrap();
    show("to JSON", best(written));
    let read = || serde_json::from_slice::<Tree>(black_box(&json)).unwrap();
    show("from JSON", best(read));
    let merged = || {
        let mut both = tree.clone();
        both.merge(black_box(&tree));
        both
    };
    show("merged", best(merged));
}

fn plan(body: &str, tree: Option<&Tree>, rules: &RuleSet) -> Plan {
    let prompt = prompt::read(body.as_bytes()).unwrap();
    let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[]).unwrap();
    let request = Request {
        api: Api::Messages,
        model: "",
        body: body.as_bytes(),
        prompt: &prompt,
        thread: &thread,
        key: &KEY,
        untouchable: None,
        head: None,
        held_by_provider: false,
        begin: true,
        now_s: 0,
    };
    rewrite::plan(&request, tree, rules, |_| None)
}

/// All that is done with a request, the edited body included.
fn rewritten(body: &str, tree: Option<&Tree>, rules: &RuleSet) -> Vec<u8> {
    let mut plan = plan(body, tree, rules);
    assert!(plan.applied);
    edit::apply(body.as_bytes(), &mut plan.edits).unwrap()
}

/// The shortest of many rounds.
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

/// Like the body of a coding agent after so many turns: source code with many escapes.
fn body(turns: usize, lines: usize, date: &str) -> String {
    let mut body = String::from(r#"{"model":"m","max_tokens":1,"tools":["#);
    for tool in 0..30 {
        let comma = if tool == 0 { "" } else { "," };
        body.push_str(comma);
        body.push_str(&TOOL.replace("NAME", &format!("tool_{tool}")));
    }
    body.push_str(r#"],"system":[{"type":"text","text":"You are an agent.\n<env>\n  Working directory: /home/u/project\n  Today's date: "#);
    body.push_str(date);
    body.push_str(r"\n</env>\n");
    for _ in 0..lines {
        body.push_str(r##"- Say what you do before you do it, and update the \"plan\".\n"##);
    }
    body.push_str(r#""}],"messages":[{"role":"user","content":"Begin."}"#);
    for _ in 0..turns {
        body.push(',');
        body.push_str(&TURN.replace("RESULT", &CODE.repeat(60)));
    }
    body.push_str("]}");
    body
}

const ROUNDS: usize = 30;

const TOOL: &str = r#"{"name":"NAME","description":"Reads a part of a file.\nLines are numbered from 1.\n- never use \"cat\"","input_schema":{"type":"object","properties":{"path":{"type":"string","description":"The path"},"offset":{"type":"integer","minimum":0},"limit":{"type":"integer"}},"required":["path"],"additionalProperties":false}}"#;

const TURN: &str = r#"{"role":"assistant","content":[{"type":"text","text":"Let me look."},{"type":"tool_use","id":"toolu_01","name":"tool_3","input":{"path":"/src/lib.rs","offset":120}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","content":[{"type":"text","text":"RESULT"}]}]}"#;

const CODE: &str = r#"   142\t    let value = \"text\";\n   143\t    if value.is_empty() {\n   144\t        return Err(Error::Empty { name: \"x\\n\" });\n   145\t    }\n"#;
