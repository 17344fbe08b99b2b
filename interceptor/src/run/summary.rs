//! What Weir says at the end, in a few lines.

use std::fmt::Write as _;

use weir_core::money::Money;

use crate::capture::Mode;
use crate::report::dollars;

/// What came of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How connections were captured; `None` where they were not.
    pub mode: Option<Mode>,
    /// One sentence for each step down to that mode.
    pub steps: Vec<String>,
    /// LLM calls that were forwarded.
    pub calls: u64,
    /// What they cost, as far as it is known.
    pub spend: Money,
    /// Input tokens, cached ones included.
    pub prompt_tokens: u64,
    /// Of these, the ones read from the prompt cache.
    pub cache_read_tokens: u64,
    /// Calls without a known price.
    pub unpriced: u64,
    /// Calls that a cap refused.
    pub refused: u64,
    /// Calls that were refused for another reason: too long, unreadable, without a price.
    pub denied: u64,
    /// Requests to LLM hosts of an API that Weir does not know: they may have cost money.
    pub unknown_requests: u64,
    /// Connections and calls that Weir did not look into, by reason.
    pub not_inspected: Vec<(String, u64)>,
}

/// The lines, each ending in a newline.
#[must_use]
pub fn render(summary: &Summary) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "weir: {line}");
    };
    say(&calls(summary));
    let mut exceptions = vec![];
    if summary.refused > 0 {
        exceptions.push(format!(
            "{} refused by a cap",
            counted(summary.refused, "call")
        ));
    }
    if summary.denied > 0 {
        let calls = counted(summary.denied, "call");
        exceptions.push(format!("{calls} refused for another reason, see the log"));
    }
    if summary.unpriced > 0 {
        let calls = counted(summary.unpriced, "call");
        exceptions.push(format!("{calls} without a known price, not in the spend"));
    }
    if summary.unknown_requests > 0 {
        let requests = counted(summary.unknown_requests, "request");
        exceptions.push(format!(
            "{requests} of an unknown API, which may have cost money"
        ));
    }
    if !exceptions.is_empty() {
        say(&exceptions.join(", "));
    }
    if !summary.not_inspected.is_empty() {
        say(&not_inspected(&summary.not_inspected));
    }
    if let Some(mode) = summary
        .mode
        .filter(|mode| *mode != Mode::Ebpf || !summary.steps.is_empty())
    {
        say(&match mode {
            Mode::Proxy => format!("mode {mode}: programs that ignore HTTPS_PROXY are not seen"),
            Mode::Ebpf | Mode::Redirect => format!("mode {mode}"),
        });
    }
    for step in &summary.steps {
        say(step);
    }
    text
}

fn calls(summary: &Summary) -> String {
    if summary.calls == 0 {
        return "no LLM call".to_owned();
    }
    let calls = counted(summary.calls, "LLM call");
    let spend = dollars(summary.spend, SPEND_DECIMALS);
    match share(summary.cache_read_tokens, summary.prompt_tokens) {
        Some(share) => format!("{calls}, {spend}, {share} of the input read from the prompt cache"),
        None => format!("{calls}, {spend}"),
    }
}

fn not_inspected(reasons: &[(String, u64)]) -> String {
    let total = reasons
        .iter()
        .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let mut reasons: Vec<&(String, u64)> = reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut named: Vec<String> = reasons
        .iter()
        .take(REASONS_MAX)
        .map(|(reason, count)| format!("{} {count}", reason.replace('_', " ")))
        .collect();
    if reasons.len() > REASONS_MAX {
        named.push("…".to_owned());
    }
    let which = named.join(", ");
    format!("{total} not inspected, see weir report bypass: {which}")
}

/// In whole percent, rounded down: 100% means all.
fn share(part: u64, whole: u64) -> Option<String> {
    let percent = part.saturating_mul(100).checked_div(whole)?;
    Some(format!("{percent}%"))
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A small call costs hundredths of a cent.
const SPEND_DECIMALS: u32 = 4;

/// As many reasons fit on a line; all of them are in `weir report bypass`.
const REASONS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_calls_says_so_in_one_line() {
        let summary = Summary {
            mode: Some(Mode::Ebpf),
            ..Summary::default()
        };
        assert_eq!(render(&summary), "weir: no LLM call\n");
    }

    #[test]
    fn everything_that_happened_is_said() {
        let summary = Summary {
            mode: Some(Mode::Proxy),
            steps: vec!["no mode ebpf: no capability".into()],
            calls: 12,
            spend: Money::from_nanos(431_112_340),
            prompt_tokens: 3_000,
            cache_read_tokens: 2_999,
            unpriced: 2,
            refused: 1,
            denied: 2,
            unknown_requests: 1,
            not_inspected: vec![("no_sni".into(), 1), ("client_rejects_ca".into(), 3)],
        };
        let expected = "weir: 12 LLM calls, $0.4312, 99% of the input read from the prompt cache\n\
                        weir: 1 call refused by a cap, 2 calls refused for another reason, see the log, \
                        2 calls without a known price, not in the spend, \
                        1 request of an unknown API, which may have cost money\n\
                        weir: 4 not inspected, see weir report bypass: client rejects ca 3, no sni 1\n\
                        weir: mode proxy: programs that ignore HTTPS_PROXY are not seen\n\
                        weir: no mode ebpf: no capability\n";
        assert_eq!(render(&summary), expected);
    }
}
