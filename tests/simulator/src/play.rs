//! The task of an agent, step by step: `[[play: [{"tool": "Bash", "input": {"command": "ls"}}, …]]]` in what the user says.
//!
//! Each answer of the conversation after that message calls the next tool; the one after the last is text. Only a tool
//! that the request offers is called: agents send what the user said to models without tools too, to name a session.

use crate::directive::Directive;
use crate::json::Json;

impl Directive {
    /// `self` with the next step of the task in `items` (messages, or items of input), if there is one for a request that
    /// offers `tools`.
    pub(crate) fn play(mut self, items: &[Json], tools: &[Json]) -> Self {
        let step = next(items).filter(|step| {
            let name = step.text("tool");
            name.is_some() && tools.iter().any(|tool| tool.text("name") == name)
        });
        if let Some(step) = step {
            self.tool = step.text("tool").map(str::to_owned);
            self.input = step.get("input").cloned();
        }
        self
    }
}

/// The step that comes after as many results as there are.
fn next(items: &[Json]) -> Option<Json> {
    let (at, task) = items
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, item)| Some((at, task(item)?)))?;
    let done: usize = items.iter().skip(at).map(results).sum();
    task.items().get(done).cloned()
}

/// The task that `item` sets.
fn task(item: &Json) -> Option<Json> {
    let mut found = None;
    if item.text("role") == Some("user") {
        item.strings(&mut |text| {
            let task = text.rsplit_once(MARK).and_then(|(_, rest)| {
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
                values.next()?.ok()
            });
            found = task.or_else(|| found.take());
        });
    }
    found
}

/// How many results of tools are in `value`.
fn results(value: &Json) -> usize {
    let within = match value {
        Json::Array(items) => items.iter().map(results).sum(),
        Json::Object(members) => members.iter().map(|(_, value)| results(value)).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
    };
    let is_one = value
        .text("type")
        .is_some_and(|kind| RESULTS.contains(&kind));
    within + usize::from(is_one)
}

const MARK: &str = "[[play:";

const RESULTS: [&str; 3] = [
    "tool_result",
    "function_call_output",
    "custom_tool_call_output",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn played(items: &str, tools: &str) -> Option<String> {
        let [items, tools] = [items, tools].map(|text| Json::parse(text.as_bytes()).unwrap());
        let directive = Directive::default().play(items.items(), tools.items());
        Some(format!("{} {}", directive.tool?, directive.input?))
    }

    #[test]
    fn each_result_brings_the_next_step_until_there_is_none() {
        let task = r#"{"role": "user", "content": "Do it. [[play: [{\"tool\": \"Bash\", \"input\": {\"command\": \"ls\"}}, {\"tool\": \"patch\", \"input\": \"***\"}]]] Now."}"#;
        let result = r#"{"role": "user", "content": [{"type": "tool_result", "content": "a b"}]}"#;
        let output = r#"{"type": "custom_tool_call_output", "output": "done"}"#;
        let tools = r#"[{"name": "Bash"}, {"type": "custom", "name": "patch"}]"#;
        let first = Some(r#"Bash {"command":"ls"}"#.to_owned());
        let second = Some(r#"patch "***""#.to_owned());
        assert_eq!(played(&format!("[{task}]"), tools), first);
        assert_eq!(played(&format!("[{task}]"), "[]"), None);
        assert_eq!(played(&format!("[{task}, {result}]"), tools), second);
        assert_eq!(
            played(&format!("[{task}, {result}, {output}]"), tools),
            None
        );
        assert_eq!(
            played(&format!("[{result}, {output}, {task}]"), tools),
            first
        );
        assert_eq!(
            played(r#"[{"role": "user", "content": "[[play: no"}]"#, tools),
            None
        );
    }
}
