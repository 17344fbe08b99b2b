//! What is learned from prompts that follow each other, and what is not.

use proptest::collection::vec;
use proptest::prelude::*;

use super::align::Alignment;
use super::*;
use crate::prompt::{self, HashKey};
use crate::volatile::Rules;

const KEY: HashKey = HashKey::new([5; 16]);
const NOW: i64 = 1_780_000_000;

/// A client's prompts and what is learned from them, kept as it is stored.
struct Learner {
    stored: String,
    conversations: u128,
    now_s: i64,
}

fn body(system: &str) -> String {
    serde_json::json!({ "system": system, "messages": [] }).to_string()
}

impl Learner {
    fn new() -> Self {
        Self {
            stored: serde_json::to_string(&Prompts::default()).unwrap(),
            conversations: 0,
            now_s: NOW,
        }
    }

    fn with<T>(&mut self, system: &str, look: impl FnOnce(&mut Prompts, &Units<'_>) -> T) -> T {
        static RULES: std::sync::LazyLock<Rules> =
            std::sync::LazyLock::new(|| Rules::builtin().unwrap());
        let body = body(system);
        let prompt = prompt::read(body.as_bytes()).unwrap();
        let known = RULES.find(body.as_bytes(), &prompt, None);
        let units = Units::of(body.as_bytes(), &prompt, None, &known, &KEY);
        let mut prompts: Prompts = serde_json::from_str(&self.stored).unwrap();
        let out = look(&mut prompts, &units);
        self.stored = serde_json::to_string(&prompts).unwrap();
        out
    }

    fn see(&mut self, system: &str, is_start: bool) -> News {
        self.now_s = self.now_s.saturating_add(10);
        let observed = Observed {
            conversation: self.conversations << 64,
            is_start,
            now_s: self.now_s,
        };
        self.with(system, |prompts, units| prompts.observe(units, &observed))
    }

    fn begins(&mut self, system: &str) -> News {
        self.conversations = self.conversations.saturating_add(1);
        self.see(system, true)
    }

    /// The values that would be found in a conversation that begins with `system`.
    fn found(&mut self, system: &str) -> Vec<String> {
        let now_s = self.now_s;
        let body = body(system);
        self.with(system, |prompts, units| {
            let spans = units.find(&prompts.learned(units, now_s), 0);
            let raw = spans
                .iter()
                .map(|span| body.get(span.range.clone()).unwrap());
            raw.map(str::to_owned).collect()
        })
    }

    fn names(&mut self, system: &str) -> Vec<String> {
        let now_s = self.now_s;
        self.with(system, |prompts, units| {
            prompts
                .learned(units, now_s)
                .iter()
                .map(Learned::name)
                .collect()
        })
    }
}

fn manual(lines: &str) -> String {
    format!(
        "You are an agent.\nSay what you do before you do it.\n{lines}\nStop where it works. Write down what is open.\n"
    )
}

#[test]
fn a_value_that_is_another_in_each_of_three_conversations_is_learned() {
    for (template, values) in [
        ("Build: {}", ["k3x9", "p07a", "zz81", "q4d5"]),
        (
            "Serving from shard {} of the pool.",
            ["41", "7", "233", "90"],
        ),
        (
            "Request (ref {}) accepted",
            ["a-1733/b", "a-2090/c", "a-3455/d", "b-9881/e"],
        ),
        ("{}", ["x1f7", "y2c09", "z3z3", "w4q1"]),
        (
            "Lauf \"{}\" für Müller\t{}",
            ["ä1é7", "ö2x9", "ü3ß3", "ß4a0"],
        ),
        ("会话 {} 已开始", ["17", "29", "31", "48"]),
        ("You are at turn {} of 40.", ["17", "18", "19", "21"]),
        ("The tokens left are {}", ["81234", "79001", "5312", "440"]),
        (
            "Free space on the disk: {} GB",
            ["12.5", "12.4", "9.75", "8"],
        ),
        (
            "System load {}",
            ["1.23, 0.98", "0.40, 0.51", "7, 2.25", "3.1, 2.0"],
        ),
        (
            "Commit {} is checked out",
            ["3f2504e0", "9a0c0305e8", "41d39a0c", "0a1b2c3d4e"],
        ),
        ("See PROJ-{}.", ["12345", "88120", "40991", "77001"]),
        ("Build #{}", ["4711", "4712", "4713", "4714"]),
        ("job={} pid={}", ["7120", "7121", "7340", "7341"]),
        ("Schritt {} von 12", ["3", "4", "5", "6"]),
    ] {
        let mut learner = Learner::new();
        let line = |value: &str| manual(&template.replace("{}", value));
        for value in &values[..3] {
            assert_eq!(
                learner.found(&line(value)),
                Vec::<String>::new(),
                "{template}"
            );
            learner.begins(&line(value));
        }
        let found = learner.found(&line(values[3]));
        let last = found.last().unwrap_or_else(|| panic!("{template}"));
        assert!(last.contains(values[3]), "{template}: {found:?}");
        let names = learner.names(&line(values[0]));
        assert_eq!(names, learner.names(&line(values[3])), "{template}");
        assert_eq!(names.len(), 1);
    }
}

#[test]
fn a_value_that_changes_in_the_turns_of_one_conversation_is_learned() {
    let mut learner = Learner::new();
    let line = |used: usize| manual(&format!("Tokens used so far: {used} of 200000"));
    learner.begins(&line(9120));
    for used in [11_537, 13_954] {
        learner.see(&line(used), false);
    }
    assert_eq!(learner.found(&line(20_000)), ["20000"]);
}

#[test]
fn lines_that_change_side_by_side_are_learned_each_for_itself() {
    let mut learner = Learner::new();
    let lines = |n: usize| {
        manual(&format!(
            "Build: k{n}x\nRun: r{}\nShard no {} of 9",
            n * 7,
            n + 1
        ))
    };
    for n in 1..5 {
        learner.begins(&lines(n));
    }
    assert_eq!(learner.found(&lines(8)), ["k8x", "r56", "9"]);
}

#[test]
fn a_prompt_that_is_deployed_anew_is_not_taken_for_one_that_keeps_changing() {
    let mut learner = Learner::new();
    let version = |n: usize| manual(&format!("Prompt version: {n}"));
    for n in [14, 15, 16, 17] {
        for _ in 0..20 {
            learner.begins(&version(n));
        }
        learner.now_s += 24 * 3600;
        assert_eq!(learner.found(&version(n)), Vec::<String>::new());
    }
    // Two versions side by side, as while they are rolled out.
    for n in [18, 19, 18, 19, 18, 18, 19] {
        learner.begins(&version(n));
    }
    assert_eq!(learner.found(&version(19)), Vec::<String>::new());
}

#[test]
fn values_that_come_back_in_other_conversations_are_let_go() {
    let mut learner = Learner::new();
    let branch = |n: usize| manual(&format!("Branch: t{n}x{n}"));
    for n in [1, 2, 3] {
        learner.begins(&branch(n));
    }
    assert_eq!(learner.found(&branch(4)), ["t4x4"]);
    for n in [1, 2, 3, 1, 2] {
        learner.begins(&branch(n));
    }
    assert_eq!(learner.found(&branch(2)), Vec::<String>::new());
}

#[test]
fn words_and_sentences_are_never_learned() {
    let mut learner = Learner::new();
    for (n, what) in ["French", "German", "Dutch", "Greek", "Finnish"]
        .iter()
        .enumerate()
    {
        let text = manual(&format!(
            "Answer in {what}.\nThe caller has the role {what}-admin\nTask {n}: repair the {what} gate, and then measure its level twice."
        ));
        learner.begins(&text);
        let found = learner.found(&text);
        assert!(
            found.iter().all(|found| found.parse::<usize>().is_ok()),
            "{found:?}"
        );
    }
}

/// What a system prompt tells the model to go by, with its values.
const TO_GO_BY: &[(&str, [&str; 4])] = &[
    ("Refund limit: {} USD", ["50", "75", "120", "500"]),
    (
        "Refund up to {} without asking.",
        ["50", "75", "120", "500"],
    ),
    ("Plan: {} seats", ["3", "10", "25", "40"]),
    (
        "The balance of the account is {}.",
        ["1204.50", "88", "13", "0.75"],
    ),
    (
        "Account number: {}",
        ["12345678", "88120041", "40991733", "77001122"],
    ),
    (
        "Kontonummer {}",
        ["12345678", "88120041", "40991733", "77001122"],
    ),
    ("{}", ["50", "75", "120", "500"]),
    ("{}", ["12345678", "88120041", "40991733", "77001122"]),
    (
        "You serve customer {}.",
        ["cus_8Fh2kd", "cus_91jKx", "cus_7Qq31", "cus_2Ab99"],
    ),
    ("Tenant: {}", ["t1x9", "t2x8", "t3x7", "t4x6"]),
    (
        "## Refund limit\n{}",
        ["k50x1", "k75x2", "k120x3", "k500x4"],
    ),
    ("refundLimit={}", ["k50x1", "k75x2", "k120x3", "k500x4"]),
    ("Rückerstattungslimit: {}", ["a5b0", "a7b5", "a1b2", "a9b9"]),
    ("账户余额：{}", ["a5b01", "a7b52", "a1b23", "a9b94"]),
    ("Give {} mg of it.", ["5", "10", "20", "40"]),
    ("Answer in {} words.", ["100", "150", "200", "250"]),
    ("Build {} variants.", ["2", "3", "4", "5"]),
    (
        "Opening hours: {}",
        ["10am-6pm", "9am-5pm", "8am-4pm", "7am-3pm"],
    ),
    (
        "Hotel stay from {}",
        ["2026-06-17", "2026-06-18", "2026-07-01", "2026-08-30"],
    ),
    (
        "Hotel stay from {}",
        [
            "2026-06-17T10:11",
            "2026-06-18T09:12",
            "2026-07-01T12:30",
            "2026-08-30T01:02",
        ],
    ),
    ("Covers {}", ["FY2024", "FY2025", "FY2026", "FY2027"]),
    (
        "Screen: {}",
        ["1920x1080", "1280x720", "800x600", "640x480"],
    ),
    (
        "Write to {}.",
        [
            "max1733@b.example",
            "eva9012@b.example",
            "tom5512@b.example",
            "ann7101@b.example",
        ],
    ),
    ("Speed class {}", ["tier2", "tier3", "gold4", "gold5"]),
];

#[test]
fn what_the_model_is_to_go_by_is_never_learned_however_often_it_changes() {
    for (template, values) in TO_GO_BY {
        let mut learner = Learner::new();
        for value in &values[..3] {
            learner.begins(&manual(&template.replace("{}", value)));
        }
        let last = manual(&template.replace("{}", values[3]));
        assert_eq!(
            learner.found(&last),
            Vec::<String>::new(),
            "{template} {values:?}"
        );
        learner.begins(&last);
        assert_eq!(
            learner.found(&last),
            Vec::<String>::new(),
            "{template} {values:?}"
        );
    }
}

#[test]
fn nothing_is_learned_in_a_sentence_of_duty_in_any_language() {
    let learned = |template: &str| {
        let mut learner = Learner::new();
        for value in ["k3x9", "p7q2", "z4m1"] {
            learner.begins(&manual(&template.replace("{}", value)));
        }
        learner.found(&manual(&template.replace("{}", "w8r5")))
    };
    assert_eq!(learned("Stand {} und so"), ["w8r5"]);
    for template in [
        "Stand {} niemals ändern",
        "Stand {} ne doit pas changer",
        "Stand {} no debe cambiar",
        "Stand {} não mude",
        "Stand {} deve restare",
        "Stand {} nooit wijzigen",
        "Stand {} nigdy się zmienia",
        "Stand {} никогда меняется",
        "Stand {} 请勿更改",
        "Stand {} 決して変える",
        "Stand {} 절대 변경",
    ] {
        assert_eq!(learned(template), [""; 0], "{template}");
    }
}

#[test]
fn a_learned_value_goes_when_it_has_stayed_for_a_week() {
    let mut learner = Learner::new();
    let line = |value: &str| manual(&format!("Build: {value}"));
    for value in ["a1", "b2", "c3", "d4"] {
        learner.begins(&line(value));
    }
    learner.now_s += 6 * 24 * 3600;
    assert_eq!(learner.found(&line("d4")), ["d4"]);
    learner.now_s += 2 * 24 * 3600;
    assert_eq!(learner.found(&line("d4")), Vec::<String>::new());
}

#[test]
fn prompts_of_other_agents_in_between_do_not_disturb() {
    let mut learner = Learner::new();
    for n in 0..4 {
        learner.begins(&manual(&format!("Build: k{n}x")));
        learner.begins("Write a title for the conversation.\nNo more than six words.\nNo quotes.");
    }
    assert_eq!(learner.found(&manual("Build: k9x")), ["k9x"]);
}

#[test]
fn a_value_beside_one_that_a_rule_knows_is_learned_and_the_other_left_to_its_rule() {
    let mut learner = Learner::new();
    let line = |n: usize| manual(&format!("Today's date: 2026-06-1{n}\nBuild k{n}x4 of 2026"));
    for n in 1..5 {
        learner.begins(&line(n));
    }
    assert_eq!(learner.found(&line(7)), ["k7x4"]);
}

#[test]
fn what_was_rewritten_already_is_left_alone() {
    let mut learner = Learner::new();
    let line = |value: &str| manual(&format!("Build: {value}"));
    for value in ["a1", "b2", "c3"] {
        learner.begins(&line(value));
    }
    let reference = "[see <learned-value-3f2a9c> in <context_values>]";
    assert_eq!(learner.found(&line(reference)), Vec::<String>::new());
}

#[test]
fn no_text_is_kept() {
    let mut learner = Learner::new();
    for n in 0..6 {
        learner.begins(&manual(&format!(
            "canary{n} sits in cage{n}\nBuild: canary{n}7"
        )));
    }
    assert!(
        !learner
            .found(&manual("canary9 sits in cage9\nBuild: canary97"))
            .is_empty()
    );
    for word in ["canary", "cage", "Build", "agent", "works"] {
        assert!(!learner.stored.contains(word), "{}", learner.stored);
    }
}

#[test]
fn subject_matter_that_stays_is_never_touched() {
    let corpus = include_str!("../untouched.txt");
    let mut learner = Learner::new();
    for n in 0..4 {
        for text in corpus.split("\n=====\n") {
            learner.begins(&format!("{text}\nBuild: k{n}x"));
        }
    }
    for text in corpus.split("\n=====\n") {
        let found = learner.found(&format!("{text}\nBuild: k9x"));
        assert!(
            found.iter().all(|found| found == "k9x"),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn what_is_kept_is_bounded_whatever_comes() {
    let mut learner = Learner::new();
    for round in 0..12_u32 {
        let lines = (0..6000_u32).map(|n| {
            let value = if n % 5 == 0 { n * 31 + round } else { n };
            format!("Line {value} of family {}\n", round % 11)
        });
        let system: String = lines.collect();
        learner.begins(&system);
    }
    // A number takes up to 21 bytes as it is stored.
    assert!(
        learner.stored.len() < 8 * 4096 * 21 + 8 * 16 * 4096,
        "{}",
        learner.stored.len()
    );
}

proptest! {
    #[test]
    fn alignment_maps_every_shared_unit_to_itself(
        old in vec(0_u64..12, 0..120),
        cuts in vec((0_usize..120, 0_usize..4, vec(20_u64..30, 0..4)), 0..6),
    ) {
        let mut new = old.clone();
        for (at, length, with) in cuts {
            let from = at.min(new.len());
            let to = from.saturating_add(length).min(new.len());
            new.splice(from..to, with);
        }
        if let Some(alignment) = Alignment::of(&old, &new) {
            let in_gap = |at: usize| alignment.gaps.iter().any(|gap| gap.old.contains(&at));
            for at in (0..old.len()).filter(|at| !in_gap(*at)) {
                let place = alignment.place(at).unwrap();
                prop_assert_eq!(old[at], new[place]);
            }
            let gone: usize = alignment.gaps.iter().map(|gap| gap.old.len()).sum();
            prop_assert_eq!(alignment.shared.saturating_add(gone), old.len());
        }
    }

    #[test]
    fn values_are_whole_words_between_whole_escapes_whatever_the_prompt_says(
        prompts in vec("[a-c0-2\"\\\\\né会😀 :.;-]{0,60}", 3..8),
    ) {
        let mut learner = Learner::new();
        for text in &prompts {
            learner.begins(&manual(text));
        }
        let text = manual(&prompts[0]);
        let body = body(&text);
        let now_s = learner.now_s;
        let twice = [(); 2].map(|()| {
            learner.with(&text, |prompts, units| {
                units.find(&prompts.learned(units, now_s), 0)
            })
        });
        prop_assert_eq!(&twice[0], &twice[1]);
        for span in &twice[0] {
            // A whole string again, in front of the value, in it and behind it.
            for end in [span.range.start, span.range.end] {
                let part = body.get(..end).unwrap();
                let whole = format!("{part}\",\"messages\":[]}}");
                prop_assert!(prompt::read(whole.as_bytes()).is_ok(), "{}", part);
            }
        }
    }
}
