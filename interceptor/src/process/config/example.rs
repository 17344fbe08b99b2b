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
    let example = example();
    for table in [
        "[intercept]",
        "[upstream]",
        "[cache]",
        "[[cap]]",
        "[[breaker]]",
        "[alerts]",
        "[pricing]",
        "[[price]]",
        "[ledger]",
        "[admin]",
    ] {
        // Where one is unknown, the error names all that there are.
        let error = parse(&format!("{table}\nnonsense = 1\n")).unwrap_err();
        let (_, known) = error
            .split_once("expected")
            .unwrap_or_else(|| panic!("{error}"));
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert!(!known.is_empty(), "{error}");
        for key in known.into_iter().filter(|key| *key != "flat_usd_per_mtok") {
            let is_shown = example.lines().any(|line| {
                line.starts_with(&format!("{key} =")) || line.contains(&format!(".{key}]]"))
            });
            assert!(is_shown, "{table} {key}");
        }
    }
}
