//! The pieces: what stands where, and what is coarse.

use super::render::{coarse, place};
use super::*;

#[test]
fn a_coarse_moment_has_its_hour_and_nothing_finer() {
    for (raw, expected) in [
        ("2026-06-17T14:03:22.123Z", "2026-06-17T14:00:00.000Z"),
        (
            "Monday, March 9, 2026 at 06:17:31 PM PDT",
            "Monday, March 9, 2026 at 06:00:00 PM PDT",
        ),
        ("2026年6月17日 10:11", "2026年6月17日 10:00"),
        ("1781694123", "1781694000"),
        ("1781694123456", "1781694000000"),
        ("2026-06-17", "2026-06-17"),
        ("é 9:5", "é 9:5"),
    ] {
        assert_eq!(coarse(raw), expected, "{raw}");
    }
}

#[test]
fn a_value_is_told_at_the_end_of_a_text_or_behind_what_must_come_first() {
    let told = |api, body: &str| {
        let prompt = crate::prompt::read(body.as_bytes()).unwrap();
        let place = place(api, body.as_bytes(), &prompt, prompt.messages.last()?)?;
        let (range, replacement) = place.insert("X");
        let mut edits = [Edit {
            range,
            replacement,
            rule: "test".into(),
        }];
        let edited = crate::edit::apply(body.as_bytes(), &mut edits).unwrap();
        Some(String::from_utf8(edited).unwrap())
    };
    for (api, body, expected) in [
        (
            Api::Messages,
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
            r#"{"messages":[{"role":"user","content":"hi\n\nX"}]}"#,
        ),
        (
            Api::Messages,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi\n\nX","cache_control":{"type":"ephemeral"}}]}]}"#,
        ),
        (
            Api::Messages,
            r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"r"} ]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"r"} ,{"type":"text","text":"X"}]}]}"#,
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"role":"tool","tool_call_id":"1","content":"r"}]}"#,
            r#"{"messages":[{"role":"tool","tool_call_id":"1","content":"r\n\nX"}]}"#,
        ),
        (
            Api::Responses,
            r#"{"input":"hi"}"#,
            r#"{"input":"hi\n\nX"}"#,
        ),
        (
            Api::Responses,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"u"}]}]}"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"u"},{"type":"input_text","text":"X"}]}]}"#,
        ),
        (
            Api::GenerateContent,
            r#"{"contents":[{"role":"user","parts":[{"functionResponse":{}}]}]}"#,
            r#"{"contents":[{"role":"user","parts":[{"functionResponse":{}},{"text":"X"}]}]}"#,
        ),
    ] {
        assert_eq!(told(api, body).as_deref(), Some(expected));
    }
    let nowhere = r#"{"messages":[{"role":"user","content":[]}]}"#;
    assert_eq!(told(Api::Messages, nowhere), None);
}

/// A workload with one value, told of call by call.
struct Workload {
    known: Workloads,
    about: About,
    now_s: i64,
}

impl Workload {
    fn new() -> Self {
        Self {
            known: Workloads::default(),
            about: About::default(),
            now_s: 1_000_000,
        }
    }

    /// A call with the time `time`, `later_s` after the one before; what is done about it if a
    /// conversation begins with it.
    fn call(&mut self, time: &str, later_s: i64, begins: bool) -> (Standings, Shown) {
        let rules = Rules::builtin().unwrap();
        let body = format!(
            r#"{{"system":"The current time is 2026-06-09T{time}Z.","messages":[{{"role":"user","content":"x"}}]}}"#
        );
        let prompt = crate::prompt::read(body.as_bytes()).unwrap();
        let spans = rules.find(body.as_bytes(), &prompt, None);
        let key = HashKey::new([1; 16]);
        let values = values(body.as_bytes(), &spans, &rules, &key);
        assert_eq!(values.len(), 1, "{spans:?}");
        self.now_s = self.now_s.saturating_add(later_s);
        let called = Called {
            workload: 1,
            about: &self.about,
            values: &values,
            begins,
            now_s: self.now_s,
        };
        (self.known.standings(&called), self.known.note(&called))
    }

    /// A call is over whose conversation does about the values `names` what their standing says.
    fn learns(&mut self, shown: &Shown, names: &[String], saved: i64) -> Vec<Standing> {
        let standings = if shown.moves {
            Standings {
                moved: names.to_vec(),
                off: Vec::new(),
            }
        } else {
            Standings::default()
        };
        let call = Measured {
            workload: 1,
            names: names.to_vec(),
            standings,
            shown: shown.clone(),
        };
        let saved = crate::money::Money::from_nanos(saved);
        let switched = self.known.learn(&call, saved, self.now_s);
        switched.into_iter().map(|one| one.standing).collect()
    }

    /// The same of as many calls as are judged.
    fn learns_again(&mut self, shown: &Shown, names: &[String], saved: i64) -> Vec<Standing> {
        let each = (0..JUDGED_CALLS).map(|_| self.learns(shown, names, saved));
        each.collect::<Vec<_>>().concat()
    }
}

#[test]
fn a_value_is_moved_once_a_second_conversation_could_have_read_what_the_first_wrote() {
    // The time in the prompt, seconds since the call before, and whether a conversation begins.
    type Call = (&'static str, i64, bool);
    type Moved = &'static [usize];
    let moved = |calls: &[Call]| {
        let mut workload = Workload::new();
        let each = calls.iter();
        let each = each.map(|(time, later, begins)| workload.call(time, *later, *begins));
        let each = each.map(|(standings, shown)| {
            assert!(!shown.moves || !standings.moved.is_empty());
            usize::from(shown.moves)
        });
        each.collect::<Vec<_>>()
    };
    let cases: [(&[Call], Moved); 5] = [
        // Another value while the prompt is cached.
        (&[("09:00:00", 0, true), ("09:01:00", 60, true)], &[0, 1]),
        // It stays so.
        (
            &[
                ("09:00:00", 0, true),
                ("09:01:00", 60, true),
                ("09:30:00", 1740, true),
            ],
            &[0, 1, 1],
        ),
        // The same value, or nothing left in the cache: single shots.
        (&[("09:00:00", 0, true), ("09:00:00", 60, true)], &[0, 0]),
        (
            &[
                ("09:00:00", 0, true),
                ("09:07:00", 420, true),
                ("09:14:00", 420, true),
            ],
            &[0, 0, 0],
        ),
        // One conversation that goes on.
        (
            &[
                ("09:00:00", 0, true),
                ("09:01:00", 60, false),
                ("09:02:00", 60, false),
            ],
            &[0, 0, 0],
        ),
    ];
    for (calls, expected) in cases {
        assert_eq!(moved(calls), expected, "{calls:?}");
    }
}

#[test]
fn what_does_not_pay_is_switched_off_and_reconsidered_after_a_day() {
    let mut workload = Workload::new();
    workload.call("09:00:00", 0, true);
    let (standings, shown) = workload.call("09:01:00", 60, true);
    let names = standings.moved.clone();
    assert_eq!(names.len(), 1);
    assert_eq!(workload.learns_again(&shown, &names, 5), [], "it pays");
    let until_s = workload.now_s + RECONSIDERED_SECONDS;
    let switched = workload.learns_again(&shown, &names, -1);
    assert_eq!(switched, [Standing::Kept { until_s }]);
    let (standings, shown) = workload.call("09:02:00", 60, true);
    assert_eq!(standings, Standings::default(), "not moved, not yet off");
    let until_s = workload.now_s + RECONSIDERED_SECONDS;
    let switched = workload.learns_again(&shown, &names, 0);
    assert_eq!(switched, [], "to keep a value is free");
    let switched = workload.learns_again(&shown, &names, -1);
    assert_eq!(switched, [Standing::Off { until_s }]);
    let (_, shown) = workload.call("09:02:00", 0, true);
    let switched = workload.learns_again(&shown, &names, -1);
    assert_eq!(switched, [], "nothing is done any more");
    let told = workload.known.standing_out(workload.now_s);
    assert_eq!(told.len(), 1, "{told:?}");
    let (standings, _) = workload.call("09:03:00", 60, true);
    assert_eq!(standings.off, names);
    // A process that saw a later call and judged nothing takes the verdict over.
    let mut other = Workload::new();
    other.call("09:00:00", 0, true);
    other.call("09:00:00", 600, false);
    assert!(other.now_s > workload.now_s);
    other.known.merge(workload.known.clone());
    assert_eq!(other.known.standing_out(other.now_s), told);
    // What was learned outlives the process.
    let kept = serde_json::to_string(&workload.known).unwrap();
    let mut restarted = Workloads::default();
    restarted.merge(serde_json::from_str(&kept).unwrap());
    assert_eq!(restarted, workload.known);
    let (standings, shown) = workload.call("09:04:00", RECONSIDERED_SECONDS, true);
    assert_eq!(standings, Standings::default(), "tried again");
    assert_eq!(shown.switched.len(), 1);
    assert_eq!(workload.known.standing_out(workload.now_s), []);
}

#[test]
fn what_was_planned_under_an_earlier_standing_does_not_count_for_a_later_one() {
    let mut workload = Workload::new();
    workload.call("09:00:00", 0, true);
    let (standings, moved) = workload.call("09:01:00", 60, true);
    let names = standings.moved;
    let until_s = workload.now_s + RECONSIDERED_SECONDS;
    let switched = workload.learns_again(&moved, &names, -1);
    assert_eq!(switched, [Standing::Kept { until_s }]);
    // Calls that were under way, and what they cost is known only now.
    assert_eq!(workload.learns_again(&moved, &names, -1), []);
    let (_, kept) = workload.call("09:02:00", 60, true);
    // Had the late ones been counted, the first of these would be one too many.
    let mut switched = Vec::new();
    for _ in 1..JUDGED_CALLS {
        switched.extend(workload.learns(&kept, &names, -1));
    }
    assert_eq!(switched, []);
    let until_s = workload.now_s + RECONSIDERED_SECONDS;
    assert_eq!(
        workload.learns(&kept, &names, -1),
        [Standing::Off { until_s }]
    );
}

#[test]
fn breakpoints_that_cost_more_than_they_save_are_added_no_more_for_a_day() {
    let mut workload = Workload::new();
    let (_, shown) = workload.call("09:00:00", 0, true);
    assert!(!shown.unmarked);
    let changed = Shown {
        changed: vec!["another".to_owned()],
        ..shown
    };
    let names = [BREAKPOINT.to_owned()];
    let switched = workload.learns_again(&changed, &names, -1);
    let until_s = workload.now_s + RECONSIDERED_SECONDS;
    assert_eq!(switched, [Standing::Off { until_s }]);
    assert!(workload.call("09:00:00", 60, true).1.unmarked);
    let (_, shown) = workload.call("09:00:00", RECONSIDERED_SECONDS, true);
    assert!(!shown.unmarked, "tried again");
}

#[test]
fn only_values_that_changed_are_credited_with_what_a_call_saved() {
    let mut workload = Workload::new();
    workload.call("09:00:00", 0, true);
    let (standings, shown) = workload.call("09:01:00", 60, true);
    let unchanged = Shown {
        changed: vec!["another".to_owned()],
        ..shown
    };
    let switched = workload.learns_again(&unchanged, &standings.moved, 1_000_000);
    let until_s = workload.now_s + RECONSIDERED_SECONDS;
    assert_eq!(switched, [Standing::Kept { until_s }]);
}

#[test]
fn workloads_are_bounded_and_those_idle_for_longest_go() {
    let mut known = Workloads::default();
    let about = About::default();
    let mut note = |workload: u64, now_s| {
        let called = Called {
            workload,
            about: &about,
            values: &[],
            begins: true,
            now_s,
        };
        known.note(&called);
        known.note(&called).is_warm
    };
    let max = u64::try_from(WORKLOADS_MAX).unwrap();
    for workload in 0..max {
        assert!(note(workload, 1000));
    }
    assert!(!note(max, 1100), "all others are still warm");
    assert!(note(max, 1000 + 301));
}
