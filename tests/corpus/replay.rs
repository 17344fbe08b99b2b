//! Replays a session at the simulated providers, and adds up what it used and cost.

use std::time::Duration;

use weir_simulator::{Api, Desk, Usage};

use crate::body::Conversation;
use crate::session::{Dialect, Session};
use crate::text::Moment;

/// What stands between the client and the provider.
pub(crate) trait Way {
    /// The body as it is sent on.
    fn pass(&mut self, call: &Sent<'_>) -> String;
}

/// A call on its way.
pub(crate) struct Sent<'a> {
    pub(crate) session: &'a Session,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests disturb Weir at some turns")
    )]
    pub(crate) turn: usize,
    pub(crate) body: &'a str,
    /// Milliseconds since the Unix epoch.
    pub(crate) unix_ms: i64,
}

/// Nothing stands between.
pub(crate) struct Off;

impl Way for Off {
    fn pass(&mut self, call: &Sent<'_>) -> String {
        call.body.to_owned()
    }
}

/// What a session came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) calls: usize,
    pub(crate) usage: Usage,
    pub(crate) nanodollars: u64,
    /// What a provider refused, which it never should.
    pub(crate) refused: Vec<String>,
    /// Calls whose prompt does not begin with the prompt of the call before, as the provider sees them.
    pub(crate) torn: Vec<String>,
}

/// Replays `session`, the `index`th, on one account.
pub(crate) fn replay(session: &Session, index: usize, way: &mut dyn Way) -> Replayed {
    let api = match session.api {
        Dialect::Messages => Api::Messages,
        Dialect::Chat => Api::ChatCompletions,
        Dialect::Responses => Api::Responses,
    };
    let mut desk = Desk::default();
    let start: jiff::Timestamp = session.start.parse().expect("a time");
    let mut unix_ms = start.as_millisecond();
    let begin = |conversation| {
        let moment = Moment {
            session: index,
            conversation,
            turn: 0,
            unix_ms,
        };
        Conversation::begin(session, moment)
    };
    let mut conversations: Vec<_> = (0..session.conversations).map(begin).collect();
    let mut last: Vec<Option<u64>> = vec![None; conversations.len()];
    let mut replayed = Replayed::default();
    for turn in 0..session.turns {
        let away = session
            .pause
            .filter(|(at, _)| *at == turn)
            .map_or(0, |(_, seconds)| seconds);
        unix_ms += i64::try_from(away * 1000).unwrap();
        for (number, conversation) in conversations.iter_mut().enumerate() {
            unix_ms += i64::try_from(session.step * 1000).unwrap() + 137;
            conversation.moment.unix_ms = unix_ms;
            let body = conversation.body();
            let sent = way.pass(&Sent {
                session,
                turn,
                body: &body,
                unix_ms,
            });
            let now = Duration::from_millis(u64::try_from(unix_ms).unwrap());
            replayed.calls += 1;
            match desk.serve(api, "an account", sent.as_bytes(), now) {
                Ok(served) => {
                    replayed.add(&served.usage, served.nanodollars);
                    let before =
                        std::mem::replace(&mut last[number], served.prefixes.last().copied());
                    if before.is_some_and(|before| !served.prefixes.contains(&before)) {
                        replayed
                            .torn
                            .push(format!("conversation {number}, turn {turn}"));
                    }
                    conversation.answer(&served.signature);
                }
                Err(refused) => {
                    let message = format!(
                        "conversation {number}, turn {turn}: {} {}",
                        refused.status, refused.message
                    );
                    replayed.refused.push(message);
                    conversation.answer("");
                }
            }
        }
    }
    replayed
}

impl Replayed {
    fn add(&mut self, usage: &Usage, nanodollars: u64) {
        self.usage.input_uncached += usage.input_uncached;
        self.usage.cache_read += usage.cache_read;
        self.usage.cache_write_short += usage.cache_write_short;
        self.usage.cache_write_long += usage.cache_write_long;
        self.nanodollars += nanodollars;
    }
}
