//! What the calls of a conversation cost is counted for what that conversation does about its values.

use std::sync::LazyLock;

use serde_json::json;
use weir_core::api::Api;
use weir_core::money::Money;
use weir_core::prompt;
use weir_core::rewrite::{
    self, About, Called, JUDGED_CALLS, Measured, RECONSIDERED_SECONDS, Standing, Standings, Thread,
    Valued, Workloads, values,
};
use weir_core::volatile::Span;

use super::{Client, Engine, KEY};

/// The calls of one workload, planned by what was learned of it.
struct Workload {
    engine: Engine,
    known: Workloads,
}

impl Workload {
    fn new() -> Self {
        Self {
            engine: Engine::new(""),
            known: Workloads::default(),
        }
    }

    fn call(&mut self, client: &Client, directory: &str) -> Measured {
        self.engine.now_s += 1;
        let body = client.body(&format!(
            "You are an agent.\nWorking directory: {directory}"
        ));
        let prompt = prompt::read(body.as_bytes()).unwrap();
        let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[b"caller"]).unwrap();
        let request = self.engine.request(client.api, &body, &prompt, &thread);
        let (current, now_s) = (&self.engine.current, self.engine.now_s);
        let values = |spans: &[Span]| values(body.as_bytes(), spans, &current.rules, &KEY);
        let tree = self.engine.tree(thread.first.at);
        let find = |id| self.engine.rules.get(&id).cloned();
        let standings = |spans: &[Span]| {
            let values = values(spans);
            self.known.standings(&called(&values, true, now_s))
        };
        let plan = rewrite::plan_measured(&request, tree.as_ref(), current, find, standings);
        let values = values(&plan.spans);
        let shown = self.known.note(&called(&values, thread.is_start, now_s));
        if let Some(tree) = &plan.tree {
            let tree = serde_json::to_string(tree).unwrap();
            self.engine.trees.insert(thread.first.at, tree);
        }
        Measured {
            workload: 1,
            names: plan.spans.into_iter().map(|span| span.name).collect(),
            standings: plan.standings,
            shown,
        }
    }

    /// What is done otherwise once as many calls cost something as are judged.
    fn learns(&mut self, call: &Measured) -> Vec<Standing> {
        let each = (0..JUDGED_CALLS).flat_map(|_| {
            let now_s = self.engine.now_s;
            self.known.learn(call, Money::from_nanos(-1), now_s)
        });
        each.map(|one| one.standing).collect()
    }
}

fn called(values: &[Valued], begins: bool, now_s: i64) -> Called<'_> {
    static ABOUT: LazyLock<About> = LazyLock::new(About::default);
    Called {
        workload: 1,
        about: &ABOUT,
        values,
        begins,
        now_s,
    }
}

fn talk(first: &str) -> Client {
    Client::new(Api::Messages, json!(first))
}

#[test]
fn conversations_from_before_a_switch_do_not_count_for_what_is_done_since() {
    let mut workload = Workload::new();
    let mut old = talk("First.");
    let names = workload.call(&old, "/a").names;
    assert_eq!(names, ["working-directory"]);
    // The second could have read what the first wrote.
    let mut new = talk("Second.");
    let begun = workload.call(&new, "/b");
    assert_eq!(begun.standings.moved, names);
    old.goes_on("Hm.", json!("Go on."));
    let kept = workload.call(&old, "/c");
    assert_eq!(kept.standings, Standings::default());
    assert_eq!(workload.learns(&kept), [], "the value is moved by now");
    let until_s = workload.engine.now_s + RECONSIDERED_SECONDS;
    assert_eq!(workload.learns(&begun), [Standing::Kept { until_s }]);
    // And the other way around: it stays where it stands again.
    new.goes_on("Hm.", json!("Go on."));
    let moved = workload.call(&new, "/b");
    assert_eq!(moved.standings.moved, names);
    assert_eq!(
        workload.learns(&moved),
        [],
        "that says nothing of keeping it"
    );
    let until_s = workload.engine.now_s + RECONSIDERED_SECONDS;
    assert_eq!(workload.learns(&kept), [Standing::Off { until_s }]);
}

#[test]
fn one_whose_start_is_not_known_counts_for_values_that_are_moved() {
    let mut workload = Workload::new();
    let mut lost = talk("Lost.");
    lost.goes_on("Hm.", json!("Go on."));
    workload.call(&talk("First."), "/a");
    workload.call(&talk("Second."), "/b");
    let hurt = workload.call(&lost, "/a");
    let until_s = workload.engine.now_s + RECONSIDERED_SECONDS;
    assert_eq!(workload.learns(&hurt), [Standing::Kept { until_s }]);
    assert_eq!(workload.learns(&hurt), [], "kept values hurt nobody");
}
