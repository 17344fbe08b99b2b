//! `weir doctor`: what this machine allows, what each runtime trusts, and what to do about it.

use std::io::Write;
use std::process::{ExitCode, Stdio};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use weir_certs::Authority;
use weir_certs::trust::{self, JavaDelivery, Overlays, RuntimeTrust, Surroundings, TrustedBy};

use super::{Places, print_json};
use crate::capture::{Mode, nft};
use crate::process::config;
use crate::process::state::StateDirectory;
use crate::run::{authority, can_overlay, public_files};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Weir does without.
    Limited,
    /// Weir does not run.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do, where something is not as it should be.
    remedy: Option<&'static str>,
}

impl Check {
    fn new(
        what: &'static str,
        found: Result<String, String>,
        otherwise: Verdict,
        remedy: &'static str,
    ) -> Self {
        match found {
            Ok(found) => Self {
                what,
                verdict: Verdict::Ok,
                found,
                remedy: None,
            },
            Err(found) => Self {
                what,
                verdict: otherwise,
                found,
                remedy: Some(remedy),
            },
        }
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let checks = checks(&arguments.places);
    let (runtimes, trouble) = match runtimes(&arguments.places) {
        Ok(runtimes) => (runtimes, None),
        Err(error) => (vec![], Some(format!("{error:#}"))),
    };
    let mode = best_mode(&checks);
    if arguments.json {
        let runtimes: Vec<_> = runtimes.iter().map(runtime_json).collect();
        let value = json!({"mode": mode, "checks": checks, "runtimes": runtimes, "error": trouble});
        print_json(&value, out)?;
    } else {
        show(&checks, &runtimes, trouble.as_deref(), mode, out)?;
    }
    let is_broken = checks.iter().any(|check| check.verdict == Verdict::Broken);
    Ok(if is_broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn checks(places: &Places) -> Vec<Check> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    vec![
        Check::new(
            "configuration",
            places
                .config()
                .map(|_| match config::path(places.config.as_deref()) {
                    Some(path) => path.display().to_string(),
                    None => "none, the defaults".to_owned(),
                })
                .map_err(|error| text(&error)),
            Verdict::Broken,
            "correct the line that is named",
        ),
        Check::new(
            "state directory",
            places
                .open_state()
                .map(|state| state.path().display().to_string())
                .map_err(|error| text(&error)),
            Verdict::Broken,
            "name another with --state-dir or WEIR_STATE_DIR",
        ),
        Check::new(
            CGROUP,
            weir_probes::cgroup2_mount()
                .map(|path| path.display().to_string())
                .map_err(|error| text(&error)),
            Verdict::Limited,
            "mount it: mount -t cgroup2 none /sys/fs/cgroup",
        ),
        Check::new(
            EBPF,
            weir_probes::Redirect::probe()
                .map(|()| "the kernel takes the programs".to_owned())
                .map_err(|error| text(&error)),
            Verdict::Limited,
            "without it connections are captured by nftables or a proxy",
        ),
        Check::new(
            NFTABLES,
            nftables(),
            Verdict::Limited,
            "install the package nftables and run weir as root; it is needed only without eBPF",
        ),
        Check::new(
            "mount namespaces",
            can_overlay()
                .map(|()| "the command can get its own".to_owned())
                .map_err(|error| text(&error)),
            Verdict::Limited,
            "run weir as root; else runtimes that bring their own roots are passed through, unless \
             a variable reaches them",
        ),
        Check::new(
            "proxy variables",
            other_proxy(),
            Verdict::Limited,
            "connections to that proxy are not LLM connections to Weir: unset it, and reach \
             providers directly",
        ),
    ]
}

/// Asks for the list of tables, which changes nothing.
fn nftables() -> Result<String, String> {
    let mut nft = nft();
    nft.args(["list", "tables"]).stdin(Stdio::null());
    match nft.output() {
        Ok(output) if output.status.success() => Ok("nft works".to_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.lines().collect::<Vec<_>>().join("; "))
        }
        Err(error) => Err(format!("nft: {error}")),
    }
}

fn other_proxy() -> Result<String, String> {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let set = names
        .iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    set.map_or_else(
        || Ok("none is set".to_owned()),
        |name| Err(format!("{name} is set")),
    )
}

fn runtimes(places: &Places) -> anyhow::Result<Vec<RuntimeTrust>> {
    let state: StateDirectory = places.open_state()?;
    let authority: Authority = authority(&places.config()?, &state)?;
    let files = public_files(&state, &authority)?;
    let surroundings = Surroundings::here(None)?;
    let (java, overlays) = match can_overlay() {
        Ok(()) => (
            JavaDelivery::Overlay,
            trust::overlays(&surroundings, &files)?,
        ),
        Err(_) => (JavaDelivery::Option, Overlays::default()),
    };
    let environment = trust::environment(&surroundings, &files, java)?;
    let ca = authority.certificate_pem();
    Ok(trust::runtimes(&surroundings, &environment, &overlays, &ca))
}

fn runtime_json(runtime: &RuntimeTrust) -> serde_json::Value {
    json!({
        "runtime": runtime.runtime,
        "found": runtime.found,
        "trusts_by": runtime.by.to_string(),
        "note": runtime.note,
    })
}

fn best_mode(checks: &[Check]) -> Mode {
    let is_ok = |what: &str| {
        checks
            .iter()
            .any(|check| check.what == what && check.verdict == Verdict::Ok)
    };
    match (is_ok(CGROUP), is_ok(EBPF), is_ok(NFTABLES)) {
        (true, true, _) => Mode::Ebpf,
        (true, false, true) => Mode::Redirect,
        _ => Mode::Proxy,
    }
}

fn show(
    checks: &[Check],
    runtimes: &[RuntimeTrust],
    trouble: Option<&str>,
    mode: Mode,
    out: &mut impl Write,
) -> std::io::Result<()> {
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Limited => "limited",
            Verdict::Broken => "BROKEN ",
        };
        writeln!(out, "{mark}  {:<16}  {}", check.what, check.found)?;
        if let Some(remedy) = check.remedy {
            writeln!(out, "{:27}→ {remedy}", "")?;
        }
    }
    writeln!(out, "\nweir run captures connections in mode {mode}\n")?;
    if let Some(trouble) = trouble {
        return writeln!(out, "what runtimes trust is not known: {trouble}");
    }
    writeln!(
        out,
        "what each runtime learns of the CA by, under weir run:"
    )?;
    let (here, elsewhere): (Vec<_>, Vec<_>) = runtimes
        .iter()
        .partition(|runtime| runtime.found.is_some() || runtime.by == TrustedBy::Nothing);
    let rows: Vec<[String; 3]> = here.iter().map(|runtime| row(runtime)).collect();
    let width = |column: fn(&[String; 3]) -> &str| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or(0)
    };
    let (name_width, way_width) = (width(|[name, ..]| name), width(|[_, way, _]| way));
    for (runtime, [name, way, found]) in here.iter().zip(&rows) {
        let line = format!("  {name:<name_width$}  {way:<way_width$}  {found}");
        writeln!(out, "{}", line.trim_end())?;
        if !runtime.note.is_empty() {
            writeln!(out, "  {:name_width$}  → {}", "", runtime.note)?;
        }
    }
    let elsewhere: Vec<&str> = elsewhere.iter().map(|runtime| runtime.runtime).collect();
    if !elsewhere.is_empty() {
        writeln!(out, "  not found here: {}", elsewhere.join(", "))?;
    }
    Ok(())
}

fn row(runtime: &RuntimeTrust) -> [String; 3] {
    let found = runtime.found.as_ref();
    [
        runtime.runtime.to_owned(),
        runtime.by.to_string(),
        found.map_or_else(String::new, |path| path.display().to_string()),
    ]
}

const CGROUP: &str = "cgroup2";
const EBPF: &str = "eBPF";
const NFTABLES: &str = "nftables";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: &'static str, works: bool) -> Check {
        let found = if works {
            Ok("yes".to_owned())
        } else {
            Err("no".to_owned())
        };
        Check::new(what, found, Verdict::Limited, "help")
    }

    #[test]
    fn the_mode_is_the_best_that_works() {
        for (cgroup, ebpf, nftables, mode) in [
            (true, true, true, Mode::Ebpf),
            (true, false, true, Mode::Redirect),
            (true, false, false, Mode::Proxy),
            (false, true, true, Mode::Proxy),
        ] {
            let checks = [
                check(CGROUP, cgroup),
                check(EBPF, ebpf),
                check(NFTABLES, nftables),
            ];
            assert_eq!(best_mode(&checks), mode);
        }
    }

    #[test]
    fn runtimes_stand_in_columns_and_absent_ones_in_a_line() {
        let runtime = |name, by, found: Option<&str>| RuntimeTrust {
            runtime: name,
            found: found.map(Into::into),
            by,
            note: "a note",
        };
        let runtimes = [
            runtime(
                "curl",
                TrustedBy::Variable("CURL_CA_BUNDLE"),
                Some("/bin/curl"),
            ),
            runtime("Go", TrustedBy::Variable("SSL_CERT_FILE"), None),
            runtime("pinned roots", TrustedBy::Nothing, None),
            runtime("Bun", TrustedBy::Variable("NODE_EXTRA_CA_CERTS"), None),
        ];
        let mut out = vec![];
        show(&[], &runtimes, None, Mode::Ebpf, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "  curl          variable CURL_CA_BUNDLE  /bin/curl\n                \
                        → a note\n  \
                        pinned roots  nothing\n                \
                        → a note\n  \
                        not found here: Go, Bun\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_does_not_work_comes_with_what_to_do() {
        let mut out = vec![];
        show(
            &[check(EBPF, false)],
            &[],
            Some("no CA"),
            Mode::Proxy,
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        for fragment in ["limited  eBPF", "→ help", "mode proxy", "not known: no CA"] {
            assert!(text.contains(fragment), "{text}");
        }
    }
}
