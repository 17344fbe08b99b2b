//! The sessions as data: what an agent puts into its prompts, where, and how often that changes.

use serde::Deserialize;

/// An agent at work: one conversation or several at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    pub(crate) name: String,
    /// The agent or framework whose shapes these are.
    pub(crate) agent: String,
    /// What breaks its cache; nothing where it behaves.
    #[serde(default)]
    pub(crate) busters: Vec<String>,
    /// Whether the prefix breaks in a way that rewriting is there to repair.
    #[serde(default)]
    pub(crate) repairable: bool,
    /// Calls that do not go on where the one before ended, with rewriting too: the client changes its
    /// own history, or a value is not learned yet.
    #[serde(default)]
    pub(crate) torn: usize,
    pub(crate) api: Dialect,
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) markers: Markers,
    /// `cache_control.ttl`, where the client sets one.
    pub(crate) ttl: Option<String>,
    /// Whether thinking is switched on, so that signatures are bound to history.
    #[serde(default)]
    pub(crate) thinking: bool,
    #[serde(default = "tools")]
    pub(crate) tools: usize,
    /// How many of the tools, the last ones, the model only finds by a search.
    #[serde(default)]
    pub(crate) deferred: usize,
    #[serde(default)]
    pub(crate) tool_order: ToolOrder,
    /// Templates of the blocks of the system prompt, rendered anew for each call.
    pub(crate) system: Vec<String>,
    /// Templates of what stands before the question in the first user message.
    #[serde(default)]
    pub(crate) first: Vec<String>,
    /// Whether the first message is rendered anew for each call.
    #[serde(default)]
    pub(crate) first_again: bool,
    /// Template that is added to each user turn and stays as it was.
    #[serde(default)]
    pub(crate) each: String,
    /// Template that is added to the latest user turn only, and is gone on the next.
    #[serde(default)]
    pub(crate) latest: String,
    #[serde(default = "turns")]
    pub(crate) turns: usize,
    /// Tool calls in each turn.
    #[serde(default = "one")]
    pub(crate) calls: usize,
    /// Texts between the calls of a turn, so that they are no run.
    #[serde(default)]
    pub(crate) chatty: bool,
    /// Seconds between calls.
    #[serde(default = "step")]
    pub(crate) step: u64,
    /// Turn before which the user is away, and for how many seconds.
    pub(crate) pause: Option<(usize, u64)>,
    /// When it begins, as RFC 3339.
    #[serde(default = "start")]
    pub(crate) start: String,
    /// Conversations that take turns.
    #[serde(default = "one")]
    pub(crate) conversations: usize,
    /// Turn at which the history is replaced by a summary.
    pub(crate) compaction: Option<usize>,
    /// What the client changes in its history each time it is sent.
    pub(crate) replay: Option<Replay>,
    /// Other members of the body, as a template.
    #[serde(default)]
    pub(crate) body: String,
    /// Members of the body from this turn on instead.
    pub(crate) body_later: Option<(usize, String)>,
}

/// How the session's calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dialect {
    Messages,
    Chat,
    Responses,
}

/// Where the client puts cache markers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Markers {
    /// Nowhere.
    #[default]
    None,
    /// On the last block of the system prompt and of the two latest user messages.
    Agent,
    /// On the last block of the system prompt.
    System,
    /// On the first block of the system prompt.
    First,
    /// At the top of the body.
    Automatic,
}

/// What happens to the list of tools from call to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolOrder {
    #[default]
    Fixed,
    /// Another order with each call.
    Shuffled,
    /// The same tools, their keys in another order with each call.
    Keys,
    /// A tool server connects at the fourth turn.
    Growing,
}

/// What a client changes in its own history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Replay {
    /// The keys of tool arguments come in another order each time.
    Arguments,
    /// Thinking is left out.
    Thinking,
}

/// All sessions, in the order of the files.
pub(crate) fn all() -> Vec<Session> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        session: Vec<Session>,
    }
    let parse = |text: &str| {
        toml::from_str::<File>(text)
            .expect("the sessions are valid")
            .session
    };
    FILES.iter().flat_map(|text| parse(text)).collect()
}

const FILES: [&str; 6] = [
    include_str!("sessions/coding.toml"),
    include_str!("sessions/assistants.toml"),
    include_str!("sessions/openai.toml"),
    include_str!("sessions/languages.toml"),
    include_str!("sessions/unknown.toml"),
    include_str!("sessions/harmless.toml"),
];

fn tools() -> usize {
    8
}

fn turns() -> usize {
    8
}

fn one() -> usize {
    1
}

fn step() -> u64 {
    20
}

fn start() -> String {
    "2026-06-09T09:14:07Z".to_owned()
}
