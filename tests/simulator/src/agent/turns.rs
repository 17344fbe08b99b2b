//! The plot: what the agent does in each turn, and what the provider is to answer.

/// A turn of the agent.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) what: &'static str,
    pub(super) dialect: Dialect,
    pub(super) input: Input,
    /// Stage directions for the answer.
    pub(super) answer: &'static str,
    /// Minutes past nine, which the system prompt tells.
    pub(super) minute: u32,
    /// Whether a tool server has connected by now.
    pub(super) extra_tool: bool,
}

/// Whom the agent asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A small model names the session (Anthropic Messages).
    Title,
    /// The main conversation (Anthropic Messages, streamed).
    Messages,
    /// The reviewer (OpenAI Chat Completions).
    ChatCompletions { stream: bool },
    /// The release writer (OpenAI Responses, streamed).
    Responses,
}

/// What the turn adds to the conversation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// The user says so.
    Says(&'static str),
    /// The tool that was called returns lines of a file.
    Returns { file: &'static str, lines: usize },
}

const fn main(what: &'static str, minute: u32, input: Input, answer: &'static str) -> Turn {
    Turn {
        what,
        dialect: Dialect::Messages,
        input,
        answer,
        minute,
        extra_tool: false,
    }
}

const fn later(what: &'static str, minute: u32, input: Input, answer: &'static str) -> Turn {
    Turn {
        what,
        dialect: Dialect::Messages,
        input,
        answer,
        minute,
        extra_tool: true,
    }
}

const fn aside(what: &'static str, dialect: Dialect, input: Input, answer: &'static str) -> Turn {
    Turn {
        what,
        dialect,
        input,
        answer,
        minute: 0,
        extra_tool: false,
    }
}

const fn returns(file: &'static str, lines: usize) -> Input {
    Input::Returns { file, lines }
}

/// The whole plot. Prompts grow from about 7 000 to about 30 000 tokens.
pub(super) const TURNS: [Turn; 20] = [
    aside(
        "name the session",
        Dialect::Title,
        Input::Says(TASK),
        "tokens=6",
    ),
    main(
        "plan the change",
        2,
        Input::Says(TASK),
        "tokens=180 events=30 tool=list_files",
    ),
    main(
        "look around",
        2,
        returns("files", 50),
        "tokens=60 events=10 tool=read_file",
    ),
    main(
        "read the parser",
        2,
        returns("src/parser.rs", 150),
        "tokens=90 events=15 tool=read_file",
    ),
    main(
        "read the cache",
        2,
        returns("src/cache.rs", 140),
        "tokens=80 events=15 tool=search",
    ),
    main(
        "search for callers",
        2,
        returns("matches", 60),
        "tokens=120 events=20 tool=edit_file",
    ),
    main(
        "edit the parser",
        2,
        returns("edited", 40),
        "tokens=420 events=60 tool=run_command",
    ),
    main(
        "run the tests (later)",
        3,
        returns("test-output", 130),
        "tokens=150 events=20 tool=read_file",
    ),
    main(
        "read the failing test (later)",
        4,
        returns("tests/parser.rs", 140),
        "tokens=200 events=30 tool=edit_file",
    ),
    main(
        "fix the test (later)",
        5,
        returns("edited", 40),
        "tokens=300 events=40 tool=run_command",
    ),
    main(
        "run the tests again (later)",
        6,
        returns("test-output", 120),
        "tokens=90 events=15 tool=read_file",
    ),
    main(
        "read the benchmark",
        6,
        returns("benches/parse.rs", 130),
        "tokens=120 events=20 tool=run_command",
    ),
    main(
        "run the benchmark",
        6,
        returns("bench-output", 90),
        "tokens=240 events=40",
    ),
    main(
        "answer a question",
        6,
        Input::Says(QUESTION),
        "tokens=320 events=50 tool=read_file",
    ),
    later(
        "a tool server connects",
        6,
        returns("docs/cache.md", 120),
        "tokens=90 events=15 tool=open_issue",
    ),
    later(
        "file an issue",
        6,
        returns("issue", 20),
        "tokens=200 events=30",
    ),
    aside(
        "review the change",
        Dialect::ChatCompletions { stream: false },
        returns("diff", 160),
        "tokens=350",
    ),
    aside(
        "review again",
        Dialect::ChatCompletions { stream: true },
        Input::Says(REVIEW),
        "tokens=120 events=20",
    ),
    aside(
        "draft the release notes",
        Dialect::Responses,
        returns("log", 110),
        "tokens=260 events=40",
    ),
    aside(
        "shorten them",
        Dialect::Responses,
        Input::Says(SHORTEN),
        "tokens=140 events=25",
    ),
];

const TASK: &str = "The parser copies every field it reads. Make it borrow from the input instead, keep the public \
    names as they are, and show that the benchmark got faster.";

const QUESTION: &str = "Why is the second number in the benchmark not much better than before? Have a look at what the \
    cache documents about its keys before you answer.";

const REVIEW: &str = "Both remarks are fixed now: the lifetime is on the type, and the test covers an empty field. Is \
    there anything else that you would not merge?";

const SHORTEN: &str = "Half as long, please, and put what breaks first.";
