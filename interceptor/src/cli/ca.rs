//! `weir ca`: the local CA, and the machine's own trust store.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use weir_certs::Authority;
use weir_certs::trust::store::Installed;
use weir_certs::trust::{self, JavaDelivery, Surroundings, bundle, store};
use weir_core::catalog::Catalog;

use super::{Places, print_json};
use crate::run::public_files;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the CA, if there is none, and show it.
    Init(Shown),
    /// Show the CA: what it may sign, until when, its fingerprint.
    Show(Shown),
    /// Print the machine's roots with the CA added, as PEM.
    Bundle(Placed),
    /// Print the variables that make runtimes trust the CA, for a shell to evaluate.
    Env(Shown),
    /// Put the CA into the machine's trust store.
    Install(Placed),
    /// Take the CA out of the machine's trust store.
    Uninstall(Uninstalled),
    /// Make a new CA for the hosts that are known and configured now. The old one stays trusted
    /// until it ends.
    Rotate(Shown),
}

#[derive(Debug, Args)]
struct Placed {
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Uninstalled {
    #[command(flatten)]
    places: Places,
    /// Take it out, whichever Weir it is of.
    #[arg(long)]
    any: bool,
}

#[derive(Debug, Args)]
struct Shown {
    #[command(flatten)]
    places: Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        Action::Init(Shown { places, json }) => {
            let directory = places.open_state()?.authority();
            let authority = Authority::open_or_create(&directory, &permitted(places)?)?;
            show(&authority, &directory, places, *json, out)?;
        }
        Action::Show(Shown { places, json }) => {
            let directory = places.find_state()?.authority();
            show(
                &Authority::open(&directory)?,
                &directory,
                places,
                *json,
                out,
            )?;
        }
        Action::Rotate(Shown { places, json }) => {
            let directory = places.open_state()?.authority();
            let authority = Authority::rotate(&directory, &permitted(places)?)?;
            show(&authority, &directory, places, *json, out)?;
        }
        Action::Bundle(Placed { places }) => {
            let authority = Authority::open(&places.find_state()?.authority())?;
            let roots = match bundle::system(&surroundings()?) {
                Some(path) => std::fs::read(&path).with_context(|| path.display().to_string())?,
                None => vec![],
            };
            out.write_all(bundle::merged(&roots, &authority.trusted_pem()).as_bytes())?;
        }
        Action::Env(Shown { places, json }) => environment(places, *json, out)?,
        Action::Install(Placed { places }) => {
            let directory = places.open_state()?.authority();
            let authority = Authority::open_or_create(&directory, &permitted(places)?)?;
            say(
                store::install(Path::new("/"), &authority.trusted_pem())?,
                "installed",
                out,
            )?;
        }
        Action::Uninstall(Uninstalled { places, any }) => {
            let state = places.find_state()?;
            // Where there is no CA any more, that in the store may be another's as well.
            let own = Authority::open(&state.authority()).map(|authority| authority.trusted_pem());
            let installed = store::installed(Path::new("/"), &own.unwrap_or_default());
            if installed == Installed::Another && !any {
                bail!(
                    "expected the CA of {} in the machine's trust store, found another: name its state directory \
                     with --state-dir, or take it out with --any",
                    state.path().display()
                );
            }
            say(store::uninstall(Path::new("/"))?, "taken out", out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn permitted(places: &Places) -> anyhow::Result<Vec<String>> {
    let config = places.config()?;
    Ok(Catalog::builtin()
        .with_hosts(&config.intercept.hosts)?
        .permitted_subtrees())
}

fn surroundings() -> anyhow::Result<Surroundings> {
    Surroundings::here(None).context("expected a working directory")
}

fn show(
    authority: &Authority,
    directory: &Path,
    places: &Places,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let missing = authority.missing(&permitted(places)?);
    let fingerprint = authority.fingerprint_sha256();
    let not_after = jiff::Timestamp::from_second(authority.not_after().unix_timestamp())?;
    let installed = store::installed(Path::new("/"), &authority.certificate_pem());
    if as_json {
        return print_json(
            &json!({
                "directory": directory,
                "fingerprint_sha256": fingerprint,
                "not_after": not_after.to_string(),
                "permitted": authority.permitted(),
                "missing": missing,
                "installed": installed == Installed::This,
                "certificate_pem": authority.certificate_pem(),
            }),
            out,
        );
    }
    writeln!(out, "directory    {}", directory.display())?;
    writeln!(out, "fingerprint  sha256 {fingerprint}")?;
    writeln!(out, "valid until  {not_after}")?;
    let installed = match installed {
        Installed::This => "in the machine's trust store",
        Installed::Another => {
            "another CA is in the machine's trust store: weir ca install puts this one there"
        }
        Installed::None => "not in the machine's trust store, which weir run does not need",
    };
    writeln!(out, "installed    {installed}")?;
    writeln!(
        out,
        "\nmay sign for these names and those below them alone (all of them with --json):"
    )?;
    for line in in_few_lines(authority.permitted()) {
        writeln!(out, "  {line}")?;
    }
    if !missing.is_empty() {
        writeln!(
            out,
            "\ndoes not cover these, which pass uninspected until `weir ca rotate`:"
        )?;
        for name in missing {
            writeln!(out, "  {name}")?;
        }
    }
    Ok(())
}

/// The names one by one, but those of a cloud that has one for each region together.
fn in_few_lines(names: &[String]) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in names {
        let domain = name.rsplitn(3, '.').take(2).collect::<Vec<_>>();
        groups
            .entry(domain.into_iter().rev().collect::<Vec<_>>().join("."))
            .or_default()
            .push(name);
    }
    let lines = groups
        .into_iter()
        .flat_map(|(domain, names)| match names.as_slice() {
            [_, _, _, _, _, ..] => vec![format!("{} names below {domain}", names.len())],
            few => few.iter().map(|name| (*name).clone()).collect(),
        });
    lines.collect()
}

fn environment(places: &Places, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let state = places.open_state()?;
    let authority = Authority::open_or_create(&state.authority(), &permitted(places)?)?;
    let files = public_files(&state, &authority)?;
    let environment = trust::environment(&surroundings()?, &files, JavaDelivery::Option)?;
    if as_json {
        let values = environment
            .set
            .iter()
            .map(|(name, value)| (*name, value.to_string_lossy()));
        return print_json(&values.collect::<BTreeMap<_, _>>(), out);
    }
    for (name, value) in &environment.set {
        // In single quotes nothing is special to a shell but the quote itself.
        let value = value.to_string_lossy().replace('\'', r"'\''");
        writeln!(out, "export {name}='{value}'")?;
    }
    for note in environment.notes {
        writeln!(out, "# {note}")?;
    }
    Ok(())
}

fn say(change: store::Change, done: &str, out: &mut impl Write) -> anyhow::Result<()> {
    match change {
        store::Change::Made => writeln!(
            out,
            "the CA is {done}; programs that run already keep the roots that they have read"
        )?,
        store::Change::None => writeln!(out, "nothing to do")?,
    }
    Ok(())
}

const EXAMPLES: &str = "\
weir run needs none of these: it makes the CA, and its command trusts it.

Examples:
  eval \"$(weir ca env)\"         make programs of this shell trust the CA
  weir ca bundle > roots.pem    roots for a program that takes a file
  sudo weir ca install          make the machine trust it; uninstall undoes it";
