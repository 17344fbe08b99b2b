//! `weir prices import FILE`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use weir_core::pricing::{self, Change};

use crate::cli::{Places, print_json};
use crate::process::prices::{self, PriceFiles};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// The price file; its format is told by its shape.
    #[arg(required_unless_present = "remove")]
    file: Option<PathBuf>,
    /// The format, where it is to be no other.
    #[arg(long, value_enum)]
    format: Option<FormatArgument>,
    /// Only models that have no price yet: those that have one keep it.
    #[arg(long)]
    only_new: bool,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write the list to this file, in Weir's own form, instead of putting it in force.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take a list back that was imported.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["file", "format"])]
    remove: Option<FormatArgument>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArgument {
    Litellm,
    GenaiPrices,
    #[value(name = "models.dev")]
    ModelsDev,
    Openrouter,
    Weir,
}

impl FormatArgument {
    const fn format(self) -> pricing::Format {
        match self {
            Self::Litellm => pricing::Format::Litellm,
            Self::GenaiPrices => pricing::Format::GenaiPrices,
            Self::ModelsDev => pricing::Format::ModelsDev,
            Self::Openrouter => pricing::Format::OpenRouter,
            Self::Weir => pricing::Format::Weir,
        }
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    if let Some(format) = arguments.remove {
        return remove(arguments, format.format(), out);
    }
    let Some(file) = &arguments.file else {
        bail!("expected a price file, found none");
    };
    let now = jiff::Timestamp::now();
    let date = now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    let text = prices::read(file)
        .with_context(|| format!("expected to read the price file {}", file.display()))?;
    let format = arguments.format.map(FormatArgument::format);
    let mut imported =
        pricing::import(&text, format, &date).with_context(|| file.display().to_string())?;
    let (read, passed_over) = (imported.len(), imported.passed_over);
    let format = imported.format;
    let (new, changed) = if arguments.output.is_some() {
        (Vec::new(), Vec::new())
    } else {
        // What an earlier import of the format said does not count: it is replaced.
        let state = arguments.places.find_state()?;
        let others = PriceFiles::of(state.path()).listed_without(format);
        imported.keep_news(&others, now.as_second(), arguments.only_new)
    };
    let written = match &arguments.output {
        _ if arguments.dry_run => None,
        Some(path) => {
            std::fs::write(path, imported.text()?)
                .with_context(|| format!("expected to write {}", path.display()))?;
            Some(path.clone())
        }
        None => {
            let state = arguments.places.open_state()?;
            let files = PriceFiles::of(state.path());
            let written = files.write(format, &imported.text()?);
            Some(written.context("expected to write into the state directory")?)
        }
    };
    if arguments.json {
        let body = json!({
            "format": format.as_str(), "models": read, "passed_over": passed_over,
            "new": new, "changed": changed, "kept": imported.len(), "written": written,
        });
        print_json(&body, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "{read} models with a price in a file of {}; {passed_over} passed over: no price by the token, \
         or listed twice",
        format.as_str()
    )?;
    if arguments.output.is_none() {
        tell(&new, &changed, arguments.only_new, out)?;
    }
    match written {
        Some(path) => writeln!(out, "written: {}", path.display())?,
        None => writeln!(out, "nothing was written")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(
    new: &[String],
    changed: &[Change],
    only_new: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    writeln!(out, "no price so far: {}", new.len())?;
    for model in new.iter().take(SHOWN_MAX) {
        writeln!(out, "  {model}")?;
    }
    more(new.len(), out)?;
    let what = if only_new {
        "another price so far, which they keep"
    } else {
        "another price so far"
    };
    let unit = match changed {
        [] => "",
        _ => " (USD per million tokens of input, output, cache read and write, today)",
    };
    writeln!(out, "{what}: {}{unit}", changed.len())?;
    for change in changed.iter().take(SHOWN_MAX) {
        let lost = if change.lost.is_empty() {
            String::new()
        } else {
            format!("; no longer told apart: {}", change.lost.join(", "))
        };
        writeln!(
            out,
            "  {}/{}: {} -> {}; differs: {}{lost}",
            change.provider,
            change.model,
            change.before,
            change.after,
            differs(&change.differs)
        )?;
    }
    more(changed.len(), out)
}

fn differs(names: &[String]) -> String {
    let shown = names.get(..DIFFERENCES_SHOWN_MAX).unwrap_or(names);
    let more = if shown.len() < names.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

fn more(all: usize, out: &mut impl Write) -> std::io::Result<()> {
    match all.saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more (--json lists all)"),
    }
}

fn remove(
    arguments: &Arguments,
    format: pricing::Format,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let state = arguments.places.open_state()?;
    let removed = PriceFiles::of(state.path())
        .remove(format)
        .context("expected to remove a list from the state directory")?;
    if arguments.json {
        print_json(
            &json!({ "format": format.as_str(), "removed": removed }),
            out,
        )?;
    } else if removed {
        writeln!(out, "the list of {} is no longer used", format.as_str())?;
    } else {
        writeln!(out, "no list of {} was imported", format.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Models that are listed one by one.
const SHOWN_MAX: usize = 20;

/// Differences that are named of a model.
const DIFFERENCES_SHOWN_MAX: usize = 6;
