//! `deploy/weir.toml` is what the code takes, and has all of it.

use std::path::Path;

use super::Config;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("weir.toml")).map_err(|error| error.to_string())
}

/// `deploy/weir.toml`, its settings without their #.
fn example() -> String {
    let settings = include_str!("../../../../deploy/weir.toml").lines();
    let settings = settings.map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => "",
    });
    settings.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_changes_nothing_as_it_is_and_shows_the_defaults() {
    let file = include_str!("../../../../deploy/weir.toml");
    let as_it_is = Config {
        source: None,
        ..parse(file).unwrap()
    };
    assert_eq!(as_it_is, Config::default());
    let (shown, default) = (parse(&example()).unwrap(), Config::default());
    assert_eq!(shown.intercept.ports, default.intercept.ports);
    assert_eq!(shown.intercept.fail, default.intercept.fail);
    assert_eq!(shown.cache.mode, default.cache.mode);
    assert_eq!(shown.cache.learn, default.cache.learn);
    assert_eq!(shown.ledger.url, default.ledger.url);
    assert_eq!(shown.admin, default.admin);
    assert_eq!(shown.pricing.unpriced, default.pricing.unpriced);
    assert_eq!(shown.pricing.subscriptions, default.pricing.subscriptions);
    let written = "[[cap]]\nname = \"a\"\nwindow = \"day\"\nlimit_usd = 1\n";
    let (shown, default) = (&shown.caps[0], &parse(written).unwrap().caps[0]);
    assert_eq!(shown.timezone, default.timezone);
    assert_eq!(shown.kind, default.kind);
    assert_eq!(shown.on_exceed, default.on_exceed);
    assert_eq!(shown.clamp, default.clamp);
    assert_eq!(shown.warn_at_permille, default.warn_at_permille);
}

#[test]
fn the_example_has_every_setting() {
    let file = include_str!("../../../../deploy/weir.toml");
    for table in named_where_one_is_unknown("") {
        let heads = [
            format!("#[{table}]"),
            format!("#[[{table}]]"),
            format!("#[{table}."),
        ];
        let is_head = |line: &&str| heads.iter().any(|head| line.starts_with(head));
        let head = file
            .lines()
            .find(is_head)
            .unwrap_or_else(|| panic!("{table}"));
        // What is in these is named by users.
        if ["teams", "fees"].contains(&table.as_str()) {
            continue;
        }
        check_settings(head.trim_start_matches('#'));
    }
    check_settings("[[cache.rule]]");
}

#[track_caller]
fn check_settings(table: &str) {
    let example = example();
    let file = include_str!("../../../../deploy/weir.toml");
    for key in named_where_one_is_unknown(table) {
        let is_shown = example.lines().any(|line| {
            line.starts_with(&format!("{key} =")) || line.contains(&format!(".{key}]]"))
        });
        // One that goes with another value of its neighbour is shown behind a # and a space.
        let is_alternative = file.contains(&format!("\n# {key} = "));
        assert!(is_shown || is_alternative, "{table} {key}");
    }
}

/// All settings of a table: the error for an unknown one names them.
#[track_caller]
fn named_where_one_is_unknown(table: &str) -> Vec<String> {
    let error = parse(&format!("{table}\nnonsense = 1\n")).unwrap_err();
    let (_, known) = error
        .split_once("expected")
        .unwrap_or_else(|| panic!("{error}"));
    let known = known.split('`').skip(1).step_by(2);
    let known: Vec<String> = known.map(str::to_owned).collect();
    assert!(!known.is_empty(), "{error}");
    known
}

#[test]
fn an_alternative_of_the_example_is_taken_with_what_it_goes_with() {
    let flat = example().replace("unpriced = \"allow\"", "unpriced = \"flat\"");
    let file = include_str!("../../../../deploy/weir.toml");
    let mut alternatives = file
        .lines()
        .filter_map(|line| line.strip_prefix("# flat_usd"));
    let price = alternatives.next().unwrap();
    // Before the next table, so that it is in [pricing].
    let flat = flat.replace("[[price]]", &format!("flat_usd{price}\n[[price]]"));
    let config = parse(&flat).unwrap();
    assert_ne!(config.pricing.unpriced, Config::default().pricing.unpriced);
}

#[test]
fn the_configurations_in_the_guides_are_taken() {
    let mut checked = 0;
    for guide in [
        include_str!("../../../../deploy/cache.md"),
        include_str!("../../../../deploy/caps.md"),
        include_str!("../../../../deploy/ledger.md"),
        include_str!("../../../../deploy/reports.md"),
        include_str!("../../../../README.md"),
    ] {
        for block in guide.split("```toml\n").skip(1) {
            let (text, _) = block.split_once("```").unwrap();
            parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            checked += 1;
        }
    }
    assert!(checked >= 9, "{checked}");
}
