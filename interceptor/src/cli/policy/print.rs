//! The explanation of a request, for people.

use std::io::{self, Write};

use super::explain::{Explained, Made};

impl Explained {
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let model = match self.model.as_str() {
            "" => "a model that --path would name",
            model => model,
        };
        writeln!(out, "{} at {} for {model}", self.api, self.host)?;
        writeln!(
            out,
            "{} bytes, about {} tokens; cached from {} tokens on\n",
            self.bytes, self.tokens, self.minimum_tokens
        )?;
        for shown in &self.segments {
            let mut notes = String::new();
            if shown.breakpoint {
                notes.push_str("  breakpoint");
            }
            if shown.left_alone {
                notes.push_str("  the agent's own, left alone");
            }
            let bytes = shown.range.len();
            writeln!(
                out,
                "  {:<16} {:<11} {bytes:>8} bytes{notes}",
                shown.place, shown.kind
            )?;
        }
        if !self.spans.is_empty() {
            writeln!(out, "\nwhat changes from call to call, as rules know it:")?;
        }
        for found in &self.spans {
            let at = format!("{}..{}", found.range.start, found.range.end);
            let value = excerpt(&found.value, VALUE_CHARS_MAX);
            writeln!(
                out,
                "  {:<16} {:<20} {:<9} {at:>15}  {value}",
                found.place, found.rule, found.transform
            )?;
        }
        if let Some(withheld) = self.withheld {
            writeln!(out, "\nno value is moved: {}", self.why(withheld))?;
        }
        print_edits(out, "what mode = \"rewrite\" would edit:", &self.edits)?;
        let lately = "and where the bytes up to there were sent less than five minutes before:";
        print_edits(out, lately, &self.edits_if_sent_lately)
    }

    /// Why no value is edited, in words.
    fn why(&self, withheld: &str) -> String {
        let why = match withheld {
            "nothing_found" => "nothing is found that changes",
            "kept" => "each stays where it stands, and is told where it changes",
            "no_place" => "the first message has no place where one could be told",
            "api_not_covered" => "prompts of this API, or in this shape, are not rewritten",
            "below_minimum" => {
                let least = self.minimum_tokens;
                return format!("the provider caches nothing shorter than {least} tokens");
            }
            other => return other.replace('_', " "),
        };
        why.to_owned()
    }
}

fn print_edits(out: &mut impl Write, title: &str, edits: &[Made]) -> io::Result<()> {
    if edits.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    for made in edits {
        let at = format!("{}..{}", made.range.start, made.range.end);
        let (was, now) = (&made.was, &made.replacement);
        let half = |text| excerpt(text, EDIT_CHARS_MAX / 2);
        let change = match (was.as_str(), now.as_str()) {
            ("", now) => format!("+ {}", excerpt(now, EDIT_CHARS_MAX)),
            (was, "") => format!("- {}", excerpt(was, EDIT_CHARS_MAX)),
            (was, now) => format!("{} → {}", half(was), half(now)),
        };
        writeln!(out, "  {:<20} {at:>15}  {change}", made.rule)?;
    }
    Ok(())
}

/// One line of it, without what could steer a terminal.
fn excerpt(text: &str, chars_max: usize) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().take(chars_max).map(printable).collect();
    if text.chars().count() > chars_max {
        shown.push('…');
    }
    shown
}

const VALUE_CHARS_MAX: usize = 60;
const EDIT_CHARS_MAX: usize = 90;
