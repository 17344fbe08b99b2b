//! The rules against their own examples, and against texts that they must leave alone.

use super::*;

fn values(rules: &Rules, text: &str) -> Vec<String> {
    let found = rules.find_in_text(text);
    let of = |range: &Range<usize>| text.get(range.clone()).unwrap().to_owned();
    found.iter().map(|(range, _)| of(range)).collect()
}

#[test]
fn each_rule_finds_and_leaves_what_its_examples_say() {
    let raw: file::Raw = toml::from_str(BUILTIN).unwrap();
    let rules = Rules::builtin().unwrap();
    let mut wrong = Vec::new();
    for rule in raw.rule.iter().filter(|rule| rule.name != learned::RULE) {
        assert!(
            !rule.found.is_empty() && !rule.left.is_empty(),
            "{}",
            rule.name
        );
        if let Err(error) = file::Examples::of(rule).check(&rules) {
            wrong.push(error.to_string());
        }
        for text in &rule.left {
            let found = values(&rules, text);
            if !found.is_empty() {
                wrong.push(format!("{}: {text:?} gives {found:?}", rule.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn texts_about_dates_and_ids_stay_untouched() {
    let rules = Rules::builtin().unwrap();
    let corpus = include_str!("untouched.txt");
    let mut count = 0;
    for text in corpus.split("\n=====\n") {
        assert_eq!(values(&rules, text), Vec::<String>::new(), "{text}");
        count += 1;
    }
    assert!(count >= 12, "{count} texts");
}

#[test]
fn what_stands_beside_a_date_or_a_time_is_no_part_of_it() {
    let rules = Rules::builtin().unwrap();
    for (text, value) in [
        ("Current time: 14:03:22 ONLY answer in French.", "14:03:22"),
        ("Current time: 10:11:12 NEVER tell the user.", "10:11:12"),
        ("Current time: 10:11:12 USER input follows.", "10:11:12"),
        ("Current time: 10:11:12 DON'T guess.", "10:11:12"),
        (
            "Current time: 10:11:12 Read/Write access is off.",
            "10:11:12",
        ),
        ("Current time: 10:11:12 CEST ONLY French.", "10:11:12 CEST"),
        (
            "Current time: 10:11:12 Europe/Vienna",
            "10:11:12 Europe/Vienna",
        ),
        (
            "Today's date: 2026-06-17\n50 USD is the refund limit",
            "2026-06-17",
        ),
        ("Today's date: 2026-06-17\n24/7 support", "2026-06-17"),
        (
            "Today's date: 2026-06-17\n10. Working directory",
            "2026-06-17",
        ),
        ("Today's date: 2026-06-17\n12:00 is lunch", "2026-06-17"),
        (
            "Today's date: 2026-06-17\n09:00-17:00 are the office hours",
            "2026-06-17",
        ),
        (
            "Today's date: 2026-06-17 10 questions are allowed",
            "2026-06-17",
        ),
        (
            "Today's date: June 9, 2026, Monday rules apply",
            "June 9, 2026",
        ),
        (
            "Today's date: June 9, 2026, Money is refunded",
            "June 9, 2026",
        ),
    ] {
        assert_eq!(values(&rules, text), [value], "{text}");
    }
}

#[test]
fn a_time_that_its_sentence_is_about_stays_and_the_day_before_it_too() {
    let rules = Rules::builtin().unwrap();
    for (text, value) in [
        ("Today's date: 2026-06-17 12:00 is lunch", None),
        (
            "Today's date: 2026-06-17 09:00-17:00 are the office hours",
            None,
        ),
        ("Current time: 14:00 to 16:00, nobody is to be called", None),
        ("Current time: 22:00 ist Zapfenstreich", None),
        ("Current time: 14:03:22 and counting", Some("14:03:22")),
        (
            "Today's date is 2026-06-17 12:00\nLunch is late.",
            Some("2026-06-17 12:00"),
        ),
        (
            "Today's date: 2026-06-17 is a Wednesday",
            Some("2026-06-17"),
        ),
    ] {
        let found = values(&rules, text);
        assert_eq!(found.first().map(String::as_str), value, "{text}");
    }
}

#[test]
fn words_of_duty_and_limits_guard_a_value_in_every_language() {
    let raw: file::Raw = toml::from_str(BUILTIN).unwrap();
    let rules = Rules::builtin().unwrap();
    let (rules_alone, _) = BUILTIN.split_once("[[guard]]").unwrap();
    let unguarded = Rules::from_source(rules_alone).unwrap();
    assert_eq!(raw.guard.len(), 11);
    for guard in &raw.guard {
        assert!(guard.left.len() >= 3, "{}", guard.language);
        for text in &guard.left {
            assert_eq!(values(&rules, text), [""; 0], "{}: {text}", guard.language);
            assert_eq!(values(&unguarded, text).len(), 1, "{text} tells nothing");
        }
    }
}

#[test]
fn a_sentence_of_chinese_or_japanese_ends_without_a_blank_and_may_begin_with_the_following() {
    let rules = Rules::builtin().unwrap();
    for text in [
        "请勿删除文件。Free memory: 3120 MB",
        "Free memory: 3120 MB。请勿删除文件。",
        "必ず日本語で答えること！Free memory: 3120 MB",
        "Free memory: 3120 MB；費用は別",
        "必ず答えること。環境は:\nFree memory: 3120 MB",
        "以下是环境信息：\nFree memory: 3120 MB",
        "# 以下は実行環境です。\nFree memory: 3120 MB",
    ] {
        assert_eq!(values(&rules, text), ["3120 MB"], "{text}");
    }
    for text in [
        "Free memory: 3120 MB以下",
        "Free memory: 3120 MB 以下を保つこと。",
        "请保持 Free memory: 3120 MB 以下。",
        "以下必须保持：\nFree memory: 3120 MB",
        "# 必ず守ること。\nFree memory: 3120 MB",
        "不得低于此值，Free memory: 3120 MB",
    ] {
        assert_eq!(values(&rules, text), [""; 0], "{text}");
    }
}

#[test]
fn names_of_files_may_be_of_money_and_limits_but_not_of_duties() {
    let rules = Rules::builtin().unwrap();
    for names in [
        "料金.csv\n上限/最大.md",
        "费用.txt\n以下.md",
        "$HOME/x\ncost$.txt\n€.md",
    ] {
        let text = format!("<files>\n{names}\n</files>");
        assert_eq!(values(&rules, &text), [names]);
    }
    for names in ["必ず読む.md", "禁止.txt"] {
        let text = format!("<files>\n{names}\n</files>");
        assert_eq!(values(&rules, &text), [""; 0]);
    }
}

#[test]
fn a_commit_whose_subject_says_what_to_do_stays() {
    let rules = Rules::builtin().unwrap();
    assert_eq!(values(&rules, "HEAD: abc1234 Never push to main"), [""; 0]);
    assert_eq!(values(&rules, "HEAD: abc1234 Nie direkt pushen"), [""; 0]);
    let listed = "Recent commits:\nabc1234 Never panic\n";
    assert_eq!(values(&rules, listed), ["abc1234 Never panic\n"]);
}

#[test]
fn a_value_ends_where_what_is_said_about_it_begins() {
    let rules = Rules::builtin().unwrap();
    for (text, value) in [
        ("OS version: Linux 6.8 - the newest there is", "Linux 6.8"),
        ("OS version: Linux 6.8. Never reboot.", "Linux 6.8"),
        ("OS version: macOS 15.3 (24D60)", "macOS 15.3 (24D60)"),
        (
            "Kernel: Linux 6.8.0-31-generic #31-Ubuntu SMP 2024 x86_64",
            "Linux 6.8.0-31-generic #31-Ubuntu SMP 2024 x86_64",
        ),
        ("HEAD: abc1234 Fix it. Never push.", "abc1234 Fix it"),
        ("HEAD: abc1234 - not pushed", "abc1234"),
        ("HEAD: 1234567\nNever push", "1234567"),
        (
            "Current branch: main\n\nStatus:\n(clean)\nNever push.",
            "Current branch: main\n\nStatus:\n(clean)\n",
        ),
        ("Memory free: 3120 MB. Never use more.", "3120 MB"),
    ] {
        assert_eq!(values(&rules, text), [value], "{text}");
    }
}

#[test]
fn a_set_from_before_there_were_guards_finds_what_it_found() {
    let guarded = Rules::builtin().unwrap();
    let (rules_alone, _) = BUILTIN.split_once("[[guard]]").unwrap();
    let old = rules_alone.lines();
    let old = old.filter(|line| !(line.starts_with("limit = ") || line.starts_with("subject = ")));
    let old = Rules::from_source(&old.collect::<Vec<_>>().join("\n")).unwrap();
    for (text, value) in [
        ("Never kill PID 1234", "1234"),
        ("Current time: 12:00 is lunch", "12:00"),
        ("HEAD: abc1234 Never push", "abc1234 Never push"),
    ] {
        assert_eq!(values(&old, text), [value]);
        assert_eq!(values(&guarded, text), [""; 0]);
    }
}

#[test]
fn all_that_known_agents_put_into_their_prompts_is_found() {
    #[derive(serde::Deserialize)]
    struct Known {
        agent: String,
        text: String,
        values: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct All {
        known: Vec<Known>,
    }
    let rules = Rules::builtin().unwrap();
    let all: All = toml::from_str(include_str!("known.toml")).unwrap();
    let agents: std::collections::BTreeSet<&str> =
        all.known.iter().map(|known| known.agent.as_str()).collect();
    assert!(agents.len() >= 25, "{agents:?}");
    for Known {
        agent,
        text,
        values: expected,
    } in &all.known
    {
        assert_eq!(&values(&rules, text), expected, "{agent}: {text}");
    }
}

#[test]
fn values_are_found_through_escapes() {
    let body = br#"{"system":"A \"q\" \u00e9\ud83d\ude00\nWorking directory: C:\\Users\\\u00e9\nEnd","messages":[]}"#;
    let prompt = crate::prompt::read(body).unwrap();
    let rules = Rules::builtin().unwrap();
    let spans = rules.find(body, &prompt, None);
    assert_eq!(spans.len(), 1);
    let raw = &body[spans[0].range.clone()];
    assert_eq!(raw, br"C:\\Users\\\u00e9");
    assert_eq!(spans[0].name, "working-directory");
}

#[test]
fn a_second_value_of_a_rule_has_a_name_of_its_own() {
    let body =
        br#"{"instructions":"Today's date: 2026-01-02. Today's date: 2026-01-03.","input":"x"}"#;
    let prompt = crate::prompt::read(body).unwrap();
    let spans = Rules::builtin().unwrap().find(body, &prompt, None);
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["current-date", "current-date-2"]);
}

#[test]
fn the_configuration_adds_rules_and_changes_transforms() {
    let more = r#"
        [[rule]]
        name = "ticket"
        transform = "pin"
        hints = ["ticket:"]
        pattern = 'Ticket: (?<value>[A-Z]+-[0-9]+)'
        [[rule]]
        name = "current-date"
        transform = "keep"
    "#;
    let rules = Rules::parse(more).unwrap();
    let text = "Today's date: 2026-01-02. Ticket: ABC-12";
    assert_eq!(values(&rules, text), ["ABC-12"]);
    let again = Rules::from_source(rules.source()).unwrap();
    assert_eq!(values(&again, text), ["ABC-12"]);
}

#[test]
fn a_wrong_rule_is_named_with_what_is_wrong() {
    for (more, expected) in [
        (
            "[[rule]]\nname = \"x\"\nhints = [\"abc\"]\npattern = '('",
            "regular expression",
        ),
        (
            "[[rule]]\nname = \"x\"\nhints = [\"abc\"]\npattern = 'a'",
            "(?<value>",
        ),
        (
            "[[rule]]\nname = \"x\"\nhints = []\npattern = '(?<value>a)'",
            "hint",
        ),
        (
            "[[rule]]\nname = \"X Y\"\nhints = [\"abc\"]\npattern = '(?<value>a)'",
            "small letters",
        ),
        (
            "[[rule]]\nname = \"nobody\"\ntransform = \"pin\"",
            "built-in",
        ),
        ("[[rule]]\nnom = \"x\"", "unknown field"),
        ("[[guard]]\nlanguage = \"x\"\nleft = []", "[[rule]] alone"),
        (
            "[[rule]]\nname = \"x\"\nhints = [\"abc\"]\npattern = 'abc (?<value>.)'\nleft = [\"abc d\"]",
            "example",
        ),
    ] {
        let error = Rules::parse(more).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
