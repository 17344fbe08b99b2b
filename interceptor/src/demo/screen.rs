//! What the demo prints: a line a call, as it happens.

use std::io::{self, IsTerminal as _, Write};

use weir_core::money::Money;

use crate::ledger::{Cost, Outcome, Record};
use crate::report::dollars;

const BAR_CELLS: u64 = 20;

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
            "turn  what the agent does               model              prompt  from cache            \
             {:>9} {:>9}",
            "cost", "total"
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
        write!(out, "{:>4}  {what:<33} {model:<18}", self.turn)?;
        if let Outcome::Refused { cap } = &record.outcome {
            let status = record.status.unwrap_or_default();
            let words = format!("refused with {status}: the cap {cap:?} is spent");
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
            "{prompt:>8}  {bar} {share:>3}% {:>9} {:>9}",
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
        assert_eq!(bar(0), "░".repeat(20));
        assert_eq!(bar(50).matches('█').count(), 10);
        assert_eq!(bar(250).chars().count(), 20);
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
        assert!(
            line.contains("refused with 402: the cap \"demo\" is spent"),
            "{line}"
        );
        assert_eq!(screen.spent, Money::ZERO);
    }
}
