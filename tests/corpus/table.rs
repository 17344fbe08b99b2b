//! The table: hit rate and cost of the input of each session, with and without rewriting.

use std::fmt::Write as _;

use tokio::runtime::Runtime;
use weir::process::config::CacheMode;

use crate::replay::{Replay, Replayed, Way};
use crate::session::{self, Session};
use crate::sidecar::{Weir, config};

/// A session, with rewriting and without.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) session: Session,
    pub(crate) off: Replayed,
    pub(crate) rewritten: Replayed,
}

/// Replays all sessions one after the other, half of them through each of two sidecars.
pub(crate) fn rows() -> Vec<Row> {
    let sessions = session::all();
    let sessions = &sessions;
    let half = |which: usize| {
        let own = sessions.iter().enumerate().skip(which).step_by(2);
        Runtime::new().unwrap().block_on(async {
            let mut weir = Weir::start(config(CacheMode::Rewrite, ""));
            let mut rows = Vec::new();
            for (index, session) in own {
                let begin = || Replay::begin(session, index);
                let row = Row {
                    off: begin().whole(&mut Way::Off).await,
                    rewritten: begin().whole(&mut Way::Through(&mut weir)).await,
                    session: session.clone(),
                };
                rows.push((index, row));
            }
            rows
        })
    };
    let mut rows = std::thread::scope(|scope| {
        let halves = [0, 1].map(|which| scope.spawn(move || half(which)));
        halves.map(|half| half.join().unwrap()).concat()
    });
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

impl Row {
    /// What rewriting saves of the cost, in thousandths; negative where it costs more.
    pub(crate) fn saved_permille(&self) -> i64 {
        let (off, on) = (self.off.nanodollars, self.rewritten.nanodollars);
        let [off, on] = [off, on].map(|cost| i64::try_from(cost).expect("a small bill"));
        (off - on) * 1000 / off.max(1)
    }
}

/// All sessions with their totals, as Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    for row in rows {
        let Session {
            name,
            agent,
            busters,
            ..
        } = &row.session;
        let named =
            if name.to_lowercase().starts_with(&agent.to_lowercase()) || agent == "own framework" {
                name.clone()
            } else {
                format!("{name} ({agent})")
            };
        let busters = if busters.is_empty() {
            "nothing".to_owned()
        } else {
            busters.join(", ")
        };
        line(&mut text, &format!("{named} | {busters}"), &[row]);
    }
    let broken: Vec<&Row> = rows.iter().filter(|row| row.session.repairable).collect();
    let others: Vec<&Row> = rows.iter().filter(|row| !row.session.repairable).collect();
    let all: Vec<&Row> = rows.iter().collect();
    for (name, rows) in [("broken prefix", broken), ("others", others), ("all", all)] {
        line(
            &mut text,
            &format!("**{name}** | {} sessions", rows.len()),
            &rows,
        );
    }
    text
}

fn line(text: &mut String, name: &str, rows: &[&Row]) {
    let sum = |of: fn(&Replayed) -> u64, on: bool| {
        let picked = rows
            .iter()
            .map(|row| if on { &row.rewritten } else { &row.off });
        picked.map(of).sum::<u64>()
    };
    let hit = |on| sum(|r| r.usage.cache_read, on) * 1000 / sum(|r| r.usage.prompt(), on).max(1);
    let (off, on) = (sum(|r| r.nanodollars, false), sum(|r| r.nanodollars, true));
    let calls: usize = rows.iter().map(|row| row.off.calls).sum();
    let saved = (i128::from(off) - i128::from(on)) * 1000 / i128::from(off.max(1));
    let sign = if saved < 0 { "+" } else { "−" };
    let change = if saved == 0 {
        "0 %".to_owned()
    } else {
        format!(
            "{sign}{}",
            percent(saved.unsigned_abs().try_into().expect("a share"))
        )
    };
    let (hit_off, hit_on) = (percent(hit(false)), percent(hit(true)));
    writeln!(
        text,
        "| {name} | {calls} | {hit_off} | {hit_on} | {} | {} | {change} |",
        dollars(off),
        dollars(on)
    )
    .expect("a text");
}

/// `readme` with its table replaced.
pub(crate) fn replaced(readme: &str, table: &str) -> String {
    let (before, rest) = readme.split_once(BEGIN).expect(BEGIN);
    let (_, after) = rest.split_once(END).expect(END);
    format!("{before}{BEGIN}\n{table}{END}{after}")
}

fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

/// Rounded up to a ten-thousandth.
fn dollars(nanodollars: u64) -> String {
    let parts = nanodollars.div_ceil(100_000);
    format!("${}.{:04}", parts / 10_000, parts % 10_000)
}

const BEGIN: &str = "<!-- table -->";
const END: &str = "<!-- end of table -->";
const HEAD: &str = "| session | what breaks the cache | calls | hit, off | hit, rewrite | cost, off | cost, rewrite | change |\n\
    | --- | --- | --: | --: | --: | --: | --: | --: |\n";
