//! `weir status`: asks each running Weir process over its socket in the state directory.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{Places, amounts, print_json};
use crate::process::admin;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let state = arguments.places.find_state()?;
    let processes = ask_all(&state.run())?;
    if arguments.json {
        print_json(&json!({ "processes": processes }), out)?;
    } else if processes.is_empty() {
        writeln!(
            out,
            "no weir process runs with the state directory {}",
            state.path().display()
        )?;
    }
    if !arguments.json {
        for process in &processes {
            out.write_all(describe(process).as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask_all(directory: &Path) -> anyhow::Result<Vec<Value>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let directory = directory.display();
            bail!("{directory} is another user's: ask as its owner (sudo)")
        }
        Err(error) => return Err(error).with_context(|| directory.display().to_string()),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "sock")
    });
    paths.sort();
    let mut processes = vec![];
    for path in paths {
        match ask(&path) {
            Ok(status) => processes.push(status),
            // Its process was killed; the next `weir run` cleans up.
            Err(error) if error.downcast_ref().is_some_and(is_dead) => {}
            Err(error) => processes.push(json!({
                "id": path.file_stem().map(|stem| stem.to_string_lossy()),
                "error": format!("expected an answer, found: {error:#}"),
            })),
        }
    }
    Ok(processes)
}

fn is_dead(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}

fn ask(path: &Path) -> anyhow::Result<Value> {
    let mut stream = admin::connect_to_socket(path)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer that is cut off")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    Ok(serde_json::from_str(body)?)
}

/// A few lines for one process.
fn describe(status: &Value) -> String {
    let text = |key: &str| match status.get(key) {
        None | Some(Value::Null) => "?".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if status.get("error").is_some() {
        return format!("weir {}: {}\n", text("id"), text("error"));
    }
    let uptime = duration(status.get("uptime_s").and_then(Value::as_u64).unwrap_or(0));
    let mut lines = format!(
        "weir {}, mode {}, up {uptime}, fail {}",
        text("pid"),
        text("mode"),
        text("fail")
    );
    if status.get("observe") == Some(&Value::Bool(true)) {
        lines.push_str(", observing only");
    }
    lines.push('\n');
    if status.get("ready") == Some(&Value::Bool(false)) {
        lines.push_str(&format!("  not ready: {}\n", text("not_ready_reason")));
    }
    lines.push_str(&describe_configuration(status));
    lines.push_str(&format!("  calls in flight  {}\n", text("in_flight")));
    for cap in status
        .get("caps")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        lines.push_str(&format!("  cap              {}\n", describe_cap(cap)));
    }
    for value in status
        .get("cache")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let is_rewritten = status
            .get("cache_mode")
            .is_none_or(|mode| mode == "rewrite");
        let value = describe_value(value, is_rewritten);
        lines.push_str(&format!("  prompt value     {value}\n"));
    }
    for (key, title) in [
        ("bypasses", "not inspected"),
        ("not_redirected", "not redirected"),
    ] {
        for line in list(status.get(key)) {
            lines.push_str(&format!("  {title:<15}  {line}\n"));
        }
    }
    if let Some(estimates) = status.get("estimates").and_then(describe_estimates) {
        lines.push_str(&format!("  estimates        {estimates}\n"));
    }
    lines.push_str(&format!("  log              {}\n", text("log")));
    lines
}

/// What of the configuration's file is not in force; nothing, where all of it is.
fn describe_configuration(status: &Value) -> String {
    let mut lines = String::new();
    if let Some(reason) = status.get("config_refused").and_then(Value::as_str) {
        // Errors of TOML show the line, and what is wrong in it.
        let reason = reason.trim_end().replace('\n', "\n    ");
        lines.push_str(&format!(
            "  configuration    refused, the one before is in force: {reason}\n"
        ));
    }
    let waiting = status.get("config_needs_restart").and_then(Value::as_array);
    for key in waiting.into_iter().flatten().filter_map(Value::as_str) {
        lines.push_str(&format!(
            "  configuration    {key} was changed: takes effect when weir is started again\n"
        ));
    }
    lines
}

/// How far estimates of prompts were off; nothing, where none could be compared.
fn describe_estimates(estimates: &Value) -> Option<String> {
    let count = |key: &str| estimates.get(key).and_then(Value::as_i64);
    let prompts = count("prompts").filter(|prompts| *prompts > 0)?;
    let (mean, bias) = (count("mean_permille")?, count("bias_permille")?);
    let percent = |permille: i64| {
        let permille = permille.unsigned_abs();
        format!("{}.{}%", permille.div_euclid(10), permille.rem_euclid(10))
    };
    let direction = if bias < 0 { "low" } else { "high" };
    Some(format!(
        "of {prompts} prompts: off by {}, {} too {direction}",
        percent(mean),
        percent(bias)
    ))
}

/// What is left of a cap, and until when.
fn describe_cap(cap: &Value) -> String {
    let text = |key: &str| cap.get(key).and_then(Value::as_str).unwrap_or("?");
    let is_nothing = |amount: &str| {
        let mut digits = amount.chars().filter(char::is_ascii_digit);
        digits.all(|digit| digit == '0')
    };
    let reserved = match text("reserved") {
        reserved if is_nothing(reserved) => String::new(),
        reserved => format!(", {} reserved", amounts(reserved)),
    };
    let resets = cap.get("resets_at_unix").and_then(Value::as_i64);
    let resets = resets.and_then(|second| jiff::Timestamp::from_second(second).ok());
    let resets = resets.map_or_else(String::new, |at| format!(", resets at {at}"));
    format!(
        "{} ({}): {} of {} spent{reserved}{resets}",
        text("name"),
        text("scope"),
        amounts(text("spent")),
        amounts(text("limit"))
    )
}

/// What rewriting does, or would do, about a value that changes in the prompts of a program.
fn describe_value(value: &Value, is_rewritten: bool) -> String {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("?");
    let done = match text("standing") {
        "moved" if !is_rewritten => "mode rewrite would move it out of the prefix",
        "moved" => "moved out of the prefix",
        "off" => "left alone: telling its changes cost more than it saved",
        _ => "not moved: moving it saved nothing",
    };
    let until = value.get("until_unix").and_then(Value::as_i64);
    let until = until.and_then(|second| jiff::Timestamp::from_second(second).ok());
    let until = until.map_or_else(String::new, |at| format!(", until {at}"));
    format!(
        "{} of {} ({} at {}): {done}{until}",
        text("value"),
        text("program"),
        text("model"),
        text("host")
    )
}

/// An object as `key value` pairs, one line for each.
fn list(value: Option<&Value>) -> Vec<String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs
        .map(|(key, value)| format!("{} {value}", key.replace('_', " ")))
        .collect()
}

fn duration(seconds: u64) -> String {
    let (minutes, hours) = (seconds.div_euclid(60), seconds.div_euclid(3600));
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {} min", minutes.rem_euclid(60)),
    }
}

/// Longer than any process that works takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// More than any status is long.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_in_plain_words() {
        let status = json!({
            "pid": 7, "mode": "ebpf", "uptime_s": 3725, "fail": "open", "observe": true,
            "cache_mode": "observe",
            "ready": false, "not_ready_reason": "no heartbeat", "in_flight": 2,
            "caps": [
                {"name": "daily", "scope": "user=ann", "spent": "$1.50", "reserved": "$0.20",
                 "limit": "$20.00", "resets_at_unix": 1_795_478_400},
                {"name": "ever", "scope": "all", "spent": "890073 tokens", "reserved": "0 tokens",
                 "limit": "1000000 tokens", "resets_at_unix": null},
            ],
            "cache": [
                {"value": "cwd", "program": "claude", "model": "m", "host": "h", "standing": "off",
                 "until_unix": 1_795_478_400},
                {"value": "time", "program": "pi", "model": "m", "host": "h", "standing": "moved",
                 "until_unix": null},
            ],
            "config_refused": "weir.toml:2:1: expected a value\n", "config_needs_restart": ["intercept.fail"],
            "bypasses": {"no_sni": 3}, "not_redirected": {}, "log": "/x/weir-7.log",
            "estimates": {"prompts": 12, "mean_permille": 42, "bias_permille": -7},
        });
        let expected = "weir 7, mode ebpf, up 1 h 2 min, fail open, observing only\n  \
                        not ready: no heartbeat\n  \
                        configuration    refused, the one before is in force: weir.toml:2:1: \
                        expected a value\n  \
                        configuration    intercept.fail was changed: takes effect when weir is \
                        started again\n  \
                        calls in flight  2\n  \
                        cap              daily (user=ann): $1.50 of $20.00 spent, $0.20 reserved, \
                        resets at 2026-11-24T00:00:00Z\n  \
                        cap              ever (all): 890,073 tokens of 1,000,000 tokens spent\n  \
                        prompt value     cwd of claude (m at h): left alone: telling its changes \
                        cost more than it saved, until 2026-11-24T00:00:00Z\n  \
                        prompt value     time of pi (m at h): mode rewrite would move it out of \
                        the prefix\n  \
                        not inspected    no sni 3\n  \
                        estimates        of 12 prompts: off by 4.2%, 0.7% too low\n  \
                        log              /x/weir-7.log\n";
        assert_eq!(describe(&status), expected);
        let none = json!({"prompts": 0, "mean_permille": 0, "bias_permille": 0});
        assert_eq!(describe_estimates(&none), None);
        assert_eq!(
            describe(&json!({"id": "8-1", "error": "x"})),
            "weir 8-1: x\n"
        );
    }

    #[test]
    fn a_socket_of_a_dead_process_is_passed_over_and_a_silent_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("1.sock")).unwrap());
        assert_eq!(ask_all(directory.path()).unwrap(), Vec::<Value>::new());
        let path = directory.path().join("2.sock");
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let closer = std::thread::spawn(move || drop(listener.accept()));
        let found = ask_all(directory.path()).unwrap();
        closer.join().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["id"], "2");
        assert!(
            found[0]["error"]
                .as_str()
                .unwrap()
                .contains("expected an answer"),
            "{found:?}"
        );
    }

    #[test]
    fn without_a_state_directory_nothing_runs() {
        assert_eq!(
            ask_all(Path::new("/nonexistent/run")).unwrap(),
            Vec::<Value>::new()
        );
    }
}
