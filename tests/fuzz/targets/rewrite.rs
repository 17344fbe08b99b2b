//! Whatever a body is: its rewriting keeps it JSON, is the same each time, and is made once.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir_core::api::Api;
use weir_core::edit::apply;
use weir_core::prompt::{self, HashKey};
use weir_core::rewrite::{Request, RuleSet, Thread, plan};
use weir_core::volatile::Rules;

const KEY: HashKey = HashKey::new([5; 16]);
static RULES: LazyLock<RuleSet> =
    LazyLock::new(|| RuleSet::new(Rules::builtin().expect("the rules are valid"), &KEY));

/// The body that is sent, if it is another one.
fn rewritten(body: &[u8]) -> Option<Vec<u8>> {
    let prompt = prompt::read(body).ok()?;
    let thread = Thread::of(&prompt, body, &KEY, &[])?;
    let request = Request {
        api: Api::Messages,
        model: "",
        body,
        prompt: &prompt,
        thread: &thread,
        key: &KEY,
        untouchable: None,
        head: None,
        held_by_provider: false,
        begin: true,
        now_s: 0,
    };
    let mut made = plan(&request, None, &RULES, |_| None);
    made.applied.then(|| apply(body, &mut made.edits).expect("edits of ours fit"))
}

fuzz_target!(|body: &[u8]| {
    let Some(sent) = rewritten(body) else { return };
    assert_eq!(rewritten(body).as_ref(), Some(&sent));
    if serde_json::from_slice::<serde_json::Value>(body).is_ok() {
        assert!(serde_json::from_slice::<serde_json::Value>(&sent).is_ok());
    }
    assert_eq!(rewritten(&sent), None, "what was rewritten is left alone");
});
