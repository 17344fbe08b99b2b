//! The bodies that a client sends: its history, written in the dialect of its API.

use crate::session::{Dialect, Markers, Replay, Session, ToolOrder};
use crate::text::{Moment, filler, mix};

/// One conversation of a session.
pub(crate) struct Conversation<'a> {
    session: &'a Session,
    /// Session, conversation and turn; the time is that of the next call.
    pub(crate) moment: Moment,
    history: Vec<Turn>,
}

enum Turn {
    User {
        results: Vec<Call>,
        texts: Vec<String>,
    },
    Assistant {
        signature: String,
        text: String,
        calls: Vec<Call>,
    },
}

#[derive(Clone)]
struct Call {
    id: String,
    name: &'static str,
    text: String,
}

impl<'a> Conversation<'a> {
    pub(crate) fn begin(session: &'a Session, moment: Moment) -> Self {
        let mut conversation = Self {
            session,
            moment,
            history: Vec::new(),
        };
        let question = QUESTIONS[conversation.moment.conversation % QUESTIONS.len()];
        let texts = session
            .first
            .iter()
            .map(|template| conversation.moment.render(template));
        let mut texts: Vec<String> = texts.chain([question.to_owned()]).collect();
        texts.extend(conversation.each());
        conversation.history.push(Turn::User {
            results: Vec::new(),
            texts,
        });
        conversation
    }

    /// The body of the next call.
    pub(crate) fn body(&mut self) -> String {
        if self.session.first_again {
            let again = self
                .session
                .first
                .iter()
                .map(|template| self.moment.render(template));
            let again: Vec<String> = again.collect();
            if let Some(Turn::User { texts, .. }) = self.history.first_mut() {
                texts.splice(..again.len(), again);
            }
        }
        let model = quote(&self.session.model);
        let extra = match &self.session.body_later {
            Some((turn, later)) if self.moment.turn >= *turn => later,
            _ => &self.session.body,
        };
        let extra = self.moment.render(extra);
        let prompt = match self.session.api {
            Dialect::Messages => self.messages(),
            Dialect::Chat => self.chat(),
            Dialect::Responses => self.responses(),
        };
        let comma = if extra.is_empty() { "" } else { "," };
        format!("{{\"model\":{model},{prompt}{comma}{extra}}}")
    }

    /// Takes in the answer, and what comes after it: the results of the tools, or another question.
    pub(crate) fn answer(&mut self, signature: &str) {
        let turn = self.moment.turn;
        let calls = if turn % 4 == 3 { 0 } else { self.session.calls };
        let called = |n: usize, text: String| Call {
            id: format!("call_{}_{turn}_{n}", self.moment.conversation),
            name: TOOLS[(turn + n) % TOOLS.len()].0,
            text,
        };
        let arguments =
            |n: usize| format!(r#"{{"path":"src/part{n}.rs","first":{turn},"count":40}}"#);
        let result = |n: usize| filler("rules", 260 / self.session.calls.max(1) + 40, turn * 3 + n);
        let asked = (0..calls).map(|n| called(n, arguments(n))).collect();
        let results: Vec<Call> = (0..calls).map(|n| called(n, result(n))).collect();
        self.history.push(Turn::Assistant {
            signature: signature.to_owned(),
            text: format!("Step {turn}: I look at the next part before I change anything."),
            calls: asked,
        });
        self.moment.turn += 1;
        let question = format!("And what follows from that for point {turn}?");
        let mut texts: Vec<String> = if calls == 0 {
            vec![question]
        } else {
            Vec::new()
        };
        texts.extend(self.each());
        self.history.push(Turn::User { results, texts });
        if self.session.compaction == Some(self.moment.turn) {
            let summary = format!(
                "What happened so far, in short:\n{}",
                filler("rules", 500, turn)
            );
            let texts = vec![summary, "Go on from here.".to_owned()];
            self.history = vec![Turn::User {
                results: Vec::new(),
                texts,
            }];
        }
    }

    fn each(&self) -> Option<String> {
        let template = &self.session.each;
        (!template.is_empty()).then(|| self.moment.render(template))
    }

    /// The texts of a user turn, with what only the latest one has.
    fn texts(&self, at: usize, texts: &[String]) -> Vec<String> {
        let is_latest = at + 1 == self.history.len() && !self.session.latest.is_empty();
        let latest = is_latest.then(|| self.moment.render(&self.session.latest));
        texts.iter().cloned().chain(latest).collect()
    }

    fn messages(&self) -> String {
        let markers = self.session.markers;
        let mut system: Vec<String> = self
            .system()
            .iter()
            .map(|text| text_block("text", text))
            .collect();
        if markers == Markers::First {
            system
                .first_mut()
                .into_iter()
                .for_each(|block| self.mark(block));
        }
        if matches!(markers, Markers::Agent | Markers::System) {
            system
                .last_mut()
                .into_iter()
                .for_each(|block| self.mark(block));
        }
        let users = self
            .history
            .iter()
            .filter(|turn| matches!(turn, Turn::User { .. }))
            .count();
        let mut user = 0;
        let mut messages = Vec::new();
        for (at, turn) in self.history.iter().enumerate() {
            let (role, mut blocks) = match turn {
                Turn::User { results, texts } => {
                    user += 1;
                    let results = results.iter().map(|call| {
                        let (id, text) = (quote(&call.id), quote(&call.text));
                        format!(r#"{{"type":"tool_result","tool_use_id":{id},"content":{text}}}"#)
                    });
                    let texts = self.texts(at, texts);
                    let texts = texts.iter().map(|text| text_block("text", text));
                    ("user", results.chain(texts).collect::<Vec<_>>())
                }
                Turn::Assistant {
                    signature,
                    text,
                    calls,
                } => ("assistant", self.assistant(signature, text, calls)),
            };
            if markers == Markers::Agent && role == "user" && user + 2 > users {
                blocks
                    .last_mut()
                    .into_iter()
                    .for_each(|block| self.mark(block));
            }
            messages.push(format!(
                r#"{{"role":"{role}","content":[{}]}}"#,
                blocks.join(",")
            ));
        }
        let automatic = if markers == Markers::Automatic {
            format!(",\"cache_control\":{}", self.marker())
        } else {
            String::new()
        };
        let thinking = self.thinking();
        format!(
            r#""max_tokens":4096,"tools":[{}],"system":[{}],"messages":[{}]{automatic}{thinking}"#,
            self.tools().join(","),
            system.join(","),
            messages.join(",")
        )
    }

    fn thinking(&self) -> &'static str {
        let is_old = self.session.model.contains("-4-5");
        match (self.session.thinking, is_old) {
            (true, true) => r#","thinking":{"type":"enabled","budget_tokens":1024}"#,
            (true, false) => r#","thinking":{"type":"adaptive"}"#,
            (false, _) => "",
        }
    }

    fn assistant(&self, signature: &str, text: &str, calls: &[Call]) -> Vec<String> {
        let mut blocks = Vec::new();
        if self.session.thinking && self.session.replay != Some(Replay::Thinking) {
            let signature = quote(signature);
            blocks.push(format!(
                r#"{{"type":"thinking","thinking":"The next part decides it.","signature":{signature}}}"#
            ));
        }
        blocks.push(text_block("text", text));
        for (n, call) in calls.iter().enumerate() {
            if self.session.chatty && n > 0 {
                blocks.push(text_block("text", &format!("Then part {n}.")));
            }
            let (id, name, input) = (quote(&call.id), call.name, self.arguments(call));
            blocks.push(format!(
                r#"{{"type":"tool_use","id":{id},"name":"{name}","input":{input}}}"#
            ));
        }
        blocks
    }

    fn arguments(&self, call: &Call) -> String {
        let swapped = self.session.replay == Some(Replay::Arguments) && self.moment.turn % 2 == 1;
        let members = call.text.trim_matches(['{', '}']);
        let Some((first, rest)) = members.split_once(',').filter(|_| swapped) else {
            return call.text.clone();
        };
        format!("{{{rest},{first}}}")
    }

    fn mark(&self, block: &mut String) {
        block.pop();
        block.push_str(&format!(",\"cache_control\":{}}}", self.marker()));
    }

    fn marker(&self) -> String {
        self.session.ttl.as_ref().map_or_else(
            || r#"{"type":"ephemeral"}"#.to_owned(),
            |ttl| format!(r#"{{"type":"ephemeral","ttl":"{ttl}"}}"#),
        )
    }

    fn chat(&self) -> String {
        let message =
            |role: &str, text: &str| format!(r#"{{"role":"{role}","content":{}}}"#, quote(text));
        let mut messages: Vec<String> = self
            .system()
            .iter()
            .map(|text| message("system", text))
            .collect();
        for (at, turn) in self.history.iter().enumerate() {
            match turn {
                Turn::User { results, texts } => {
                    messages.extend(results.iter().map(|call| {
                        let (id, text) = (quote(&call.id), quote(&call.text));
                        format!(r#"{{"role":"tool","tool_call_id":{id},"content":{text}}}"#)
                    }));
                    let texts = self.texts(at, texts);
                    messages
                        .extend((!texts.is_empty()).then(|| message("user", &texts.join("\n\n"))));
                }
                Turn::Assistant { text, calls, .. } => {
                    let calls = calls.iter().map(|call| {
                        let (id, name, text) = (quote(&call.id), call.name, quote(&self.arguments(call)));
                        format!(r#"{{"id":{id},"type":"function","function":{{"name":"{name}","arguments":{text}}}}}"#)
                    });
                    let calls: Vec<String> = calls.collect();
                    let calls = if calls.is_empty() {
                        String::new()
                    } else {
                        format!(",\"tool_calls\":[{}]", calls.join(","))
                    };
                    messages.push(format!(
                        r#"{{"role":"assistant","content":{}{calls}}}"#,
                        quote(text)
                    ));
                }
            }
        }
        format!(
            "\"tools\":[{}],\"messages\":[{}]",
            self.tools().join(","),
            messages.join(",")
        )
    }

    fn responses(&self) -> String {
        let mut items = Vec::new();
        for (at, turn) in self.history.iter().enumerate() {
            match turn {
                Turn::User { results, texts } => {
                    items.extend(results.iter().map(|call| {
                        let (id, text) = (quote(&call.id), quote(&call.text));
                        format!(
                            r#"{{"type":"function_call_output","call_id":{id},"output":{text}}}"#
                        )
                    }));
                    let texts = self.texts(at, texts);
                    let parts: Vec<String> = texts
                        .iter()
                        .map(|text| text_block("input_text", text))
                        .collect();
                    let parts = parts.join(",");
                    items.extend(
                        (!texts.is_empty())
                            .then(|| format!(r#"{{"role":"user","content":[{parts}]}}"#)),
                    );
                }
                Turn::Assistant { text, calls, .. } => {
                    let text = text_block("output_text", text);
                    items.push(format!(
                        r#"{{"type":"message","role":"assistant","content":[{text}]}}"#
                    ));
                    items.extend(calls.iter().map(|call| {
                        let (id, name, text) = (quote(&call.id), call.name, quote(&self.arguments(call)));
                        format!(r#"{{"type":"function_call","call_id":{id},"name":"{name}","arguments":{text}}}"#)
                    }));
                }
            }
        }
        let instructions = quote(&self.system().join("\n\n"));
        let tools = self.tools().join(",");
        format!(
            "\"instructions\":{instructions},\"store\":false,\"tools\":[{tools}],\"input\":[{}]",
            items.join(",")
        )
    }

    fn system(&self) -> Vec<String> {
        self.session
            .system
            .iter()
            .map(|template| self.moment.render(template))
            .collect()
    }

    fn tools(&self) -> Vec<String> {
        let order = self.session.tool_order;
        let turn = self.moment.turn;
        let more = if order == ToolOrder::Growing && turn >= 4 {
            2
        } else {
            0
        };
        let mut tools: Vec<usize> = (0..self.session.tools + more).collect();
        if order == ToolOrder::Shuffled {
            let seed = u64::try_from(turn).unwrap();
            tools.sort_by_key(|n| mix(seed * 100 + u64::try_from(*n).unwrap()));
        }
        let way = if order == ToolOrder::Keys { turn } else { 0 };
        tools.into_iter().map(|n| self.tool(n, way)).collect()
    }

    /// A tool, its keys written in one of six ways.
    fn tool(&self, n: usize, way: usize) -> String {
        let (name, purpose) = TOOLS[n % TOOLS.len()];
        let name = if n < TOOLS.len() {
            name.to_owned()
        } else {
            format!("{name}_{n}")
        };
        let description = quote(&format!("{purpose}\n{}", filler("rules", 60, n)));
        let path =
            r#""path":{"type":"string","description":"Where, from the root of the repository."}"#;
        let count = r#""count":{"type":"integer","description":"How many of them."}"#;
        let properties = if way.is_multiple_of(2) {
            [path, count]
        } else {
            [count, path]
        }
        .join(",");
        let schema_name = if self.session.api == Dialect::Messages {
            "input_schema"
        } else {
            "parameters"
        };
        let mut members = [
            format!(r#""name":"{name}""#),
            format!(r#""description":{description}"#),
            format!(
                r#""{schema_name}":{{"type":"object","properties":{{{properties}}},"required":["path"]}}"#
            ),
        ];
        members.rotate_left(way % 3);
        let members = members.join(",");
        let tools = self.session.tools;
        let deferred = tools - self.session.deferred..tools;
        match self.session.api {
            Dialect::Messages if deferred.contains(&n) => {
                format!(r#"{{{members},"defer_loading":true}}"#)
            }
            Dialect::Messages => format!("{{{members}}}"),
            Dialect::Chat => format!(r#"{{"type":"function","function":{{{members}}}}}"#),
            Dialect::Responses => format!(r#"{{"type":"function",{members}}}"#),
        }
    }
}

fn text_block(kind: &str, text: &str) -> String {
    format!(r#"{{"type":"{kind}","text":{}}}"#, quote(text))
}

fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

const TOOLS: [(&str, &str); 10] = [
    ("read_file", "Reads a text file with line numbers."),
    ("list_files", "Lists files below a folder."),
    ("search", "Searches files for a pattern."),
    ("edit_file", "Replaces a piece of a file."),
    ("write_file", "Writes a new file."),
    ("run_command", "Runs a command in a sandbox."),
    ("show_diff", "Shows what was changed."),
    ("note", "Writes a note for later."),
    ("ask_user", "Asks the owner a question."),
    ("open_issue", "Opens an issue in the tracker."),
];

const QUESTIONS: [&str; 4] = [
    "The gate opens too late when the level rises fast. Find out why and repair it.",
    "Write down how the level is measured, with the source of each figure.",
    "Which of the reports can be dropped, and who reads them today?",
    "Move the limits into one file and keep their names.",
];
