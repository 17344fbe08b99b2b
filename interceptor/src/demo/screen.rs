//! What the demo prints: a line a call, as it happens.

use std::io::{self, IsTerminal as _, Write};

use weir_core::money::Money;

use crate::ledger::{Cost, Outcome, Record};
use crate::report::dollars;

const BAR_CELLS: u64 = 6;
/// What the simulated agent says of a turn before which the time in its prompt has changed.
const LATER: &str = " (later)";

/// Prints calls to `out`, with colours where that is a terminal.
pub(super) struct Screen {
    coloured: bool,
    turn: usize,
    spent: Money,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            coloured: io::stdout().is_terminal(),
            turn: 0,
            spent: Money::ZERO,
        }
    }

    pub(super) fn header(out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "    what the agent does     model             prompt from cache     cost   total"
        )
    }

    /// Prints one call; `what` says what it was for.
    pub(super) fn call(
        &mut self,
        out: &mut impl Write,
        what: &str,
        record: &Record,
    ) -> io::Result<()> {
        self.turn = self.turn.saturating_add(1);
        self.spent += record.cost.spent();
        let model = record.model_requested.as_deref().unwrap_or("?");
        let (what, mark) = match what.strip_suffix(LATER) {
            Some(what) => (what, '*'),
            None => (what, ' '),
        };
        write!(out, "{:>2}{mark} {what:<23} {model:<17}", self.turn)?;
        if let Outcome::Refused { cap } = &record.outcome {
            let status = record.status.unwrap_or_default();
            let words = format!("refused ({status}) by {cap:?}");
            return writeln!(out, " {}", self.paint("31", &words));
        }
        let Some(usage) = record.usage else {
            return writeln!(out, " {}", record.outcome.as_str());
        };
        let prompt = usage.prompt();
        let share = usage
            .cache_read
            .saturating_mul(100)
            .checked_div(prompt)
            .unwrap_or(0);
        let colour = if share >= 50 { "32" } else { "33" };
        let bar = self.paint(colour, &bar(share));
        writeln!(
            out,
            " {prompt:>6} {bar} {share:>3}% {:>7} {:>7}",
            cost(&record.cost),
            cents(self.spent)
        )
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn bar(percent: u64) -> String {
    let full = percent.min(100).saturating_mul(BAR_CELLS).div_ceil(100);
    let cells = |glyph: &str, count: u64| glyph.repeat(usize::try_from(count).unwrap_or(0));
    cells("█", full) + &cells("░", BAR_CELLS.saturating_sub(full))
}

fn cost(cost: &Cost) -> String {
    match cost {
        Cost::Priced { total, .. }
        | Cost::Estimated { total, .. }
        | Cost::Reported { total }
        | Cost::Notional { total, .. } => cents(*total),
        Cost::Unpriced => "unpriced".to_owned(),
        Cost::Unknown => "unknown".to_owned(),
    }
}

/// Dollars with four decimals.
pub(super) fn cents(amount: Money) -> String {
    dollars(amount, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_the_share() {
        assert_eq!(bar(0), "░░░░░░");
        assert_eq!(bar(50), "███░░░");
        assert_eq!(bar(250), "██████");
    }

    #[test]
    fn every_turn_of_the_agent_fits_a_terminal() {
        let mut screen = Screen {
            coloured: false,
            turn: 9,
            spent: Money::from_nanos(450_000_000),
        };
        let mut out = Vec::new();
        Screen::header(&mut out).unwrap();
        for what in weir_simulator::agent::Agent::labels() {
            let mut record = Record {
                model_requested: Some("claude-sonnet-5-5".to_owned()),
                usage: Some(weir_core::usage::Usage {
                    input: 28_056,
                    cache_read: 28_056,
                    ..Default::default()
                }),
                ..Record::default()
            };
            screen.call(&mut out, what, &record).unwrap();
            record.status = Some(402);
            record.outcome = Outcome::Refused {
                cap: "demo budget".to_owned(),
            };
            screen.call(&mut out, what, &record).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains("* run the tests "), "{text}");
    }

    #[test]
    fn a_refused_call_says_which_cap_and_adds_nothing() {
        let mut screen = Screen {
            coloured: false,
            turn: 0,
            spent: Money::ZERO,
        };
        let mut out = Vec::new();
        let record = Record {
            outcome: Outcome::Refused {
                cap: "demo".to_owned(),
            },
            status: Some(402),
            ..Record::default()
        };
        screen.call(&mut out, "asks once more", &record).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(line.contains("refused (402) by \"demo\""), "{line}");
        assert_eq!(screen.spent, Money::ZERO);
    }
}
