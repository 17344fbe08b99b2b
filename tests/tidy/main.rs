//! The rules of the house that no compiler checks.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git tracks, with their text.
fn tracked(suffixes: &[&str]) -> Vec<(String, String)> {
    let listed = std::process::Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git lists the files of the repository");
    let names = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let names = names.split_terminator('\0').filter(|name| {
        suffixes.iter().any(|suffix| name.ends_with(suffix)) && root().join(name).is_file()
    });
    let files: Vec<_> = names
        .map(|name| {
            (
                name.to_owned(),
                std::fs::read_to_string(root().join(name)).expect(name),
            )
        })
        .collect();
    assert!(
        !files.is_empty(),
        "git lists no file that ends in {suffixes:?}"
    );
    files
}

/// Panics with every offender at once.
fn check(rule: &str, offenders: Vec<String>) {
    assert!(
        offenders.is_empty(),
        "{rule}:\n  {}",
        offenders.join("\n  ")
    );
}

#[test]
fn every_source_file_says_in_its_first_line_what_it_is_for() {
    let silent = tracked(&[".rs"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "));
    check(
        "expected `//! ` as the start of",
        silent.map(|(name, _)| name).collect(),
    );
}

#[test]
fn no_source_file_is_longer_than_can_be_taken_in() {
    let long = tracked(&[".rs"]).into_iter().filter_map(|(name, text)| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{name}: {lines} lines"))
    });
    check("expected at most 500 lines", long.collect());
}

#[test]
fn the_core_depends_on_nothing_that_acts() {
    let manifest = std::fs::read_to_string(root().join("interceptor/core/Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let allowed = [
        "aho-corasick",
        "base64",
        "crc32fast",
        "jiff",
        "memchr",
        "regex",
        "serde",
        "serde_json",
        "siphasher",
        "thiserror",
        "toml",
    ];
    let others = section
        .lines()
        .filter_map(|line| {
            line.split(['.', ' ', '='])
                .next()
                .filter(|name| !name.is_empty())
        })
        .filter(|name| !allowed.contains(name) && !name.starts_with('#'));
    check(
        "expected only parsing and arithmetic as dependencies",
        others.map(str::to_owned).collect(),
    );
}

#[test]
fn no_text_holds_something_that_looks_like_a_real_key() {
    let prefixes = ["sk-ant-api03-", "sk-proj-", "AKIA", "ghp_"];
    let offenders = tracked(&[".rs", ".json", ".md", ".toml", ".sse", ".py", ".js", ".mjs"])
        .into_iter()
        .filter(|(name, _)| !name.ends_with("tidy/main.rs"))
        .filter_map(|(name, text)| {
            let found = prefixes.iter().find(|prefix| {
                text.match_indices(*prefix).any(|(at, _)| {
                    let rest = text.get(at + prefix.len()..).unwrap_or_default();
                    rest.bytes().take_while(u8::is_ascii_alphanumeric).count() >= 16
                })
            });
            found.map(|prefix| format!("{name}: {prefix}…"))
        });
    check(
        "expected made-up keys that nobody can mistake",
        offenders.collect(),
    );
}

#[test]
fn every_link_in_a_text_leads_to_a_file() {
    let mut dead = Vec::new();
    for (name, text) in tracked(&[".md"]) {
        let folder = root().join(&name).with_file_name("");
        let links = text.split("](").skip(1);
        let links = links.filter_map(|rest| rest.split([')', '#', ' ']).next());
        let files = links.filter(|link| !link.is_empty() && !link.contains("://"));
        let missing = files.filter(|link| !folder.join(link).exists());
        dead.extend(missing.map(|link| format!("{name}: {link}")));
    }
    check("expected a file at the end of each link", dead);
}

#[test]
fn the_architecture_names_what_there_is() {
    let text = std::fs::read_to_string(root().join("interceptor/ARCHITECTURE.md")).unwrap();
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let exists = |path: &str| {
        let outside = path.starts_with("tests/") || path.starts_with("interceptor/");
        let base = root().join(if outside { "" } else { "interceptor" });
        [path, &format!("{path}.rs")]
            .iter()
            .any(|path| base.join(path).exists())
    };
    let is_path = |name: &&&str| {
        let starts = ["src/", "core/", "../", "tests/", "interceptor/"];
        starts.iter().any(|start| name.starts_with(start))
    };
    let gone = named.iter().filter(is_path).filter(|path| !exists(path));
    check(
        "expected ARCHITECTURE.md to name files and folders that exist",
        gone.map(|path| (*path).to_owned()).collect(),
    );
    let mut folders: Vec<String> = tracked(&[".rs"])
        .iter()
        .filter_map(|(name, _)| {
            let inside = name.strip_prefix("interceptor/core/src/");
            let inside = inside.or_else(|| name.strip_prefix("interceptor/src/"))?;
            Some(inside.split_once('/')?.0.to_owned())
        })
        .collect();
    folders.sort();
    folders.dedup();
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    folders.retain(|folder| !words.contains(&folder.as_str()));
    check("expected ARCHITECTURE.md to name the folders", folders);
}
