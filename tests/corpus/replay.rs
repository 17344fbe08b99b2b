//! Replays sessions: what their clients send, what arrives at the provider, and what that costs.

use std::time::Duration;

use weir_simulator::{Api, Desk, Usage};

use crate::body::Conversation;
use crate::session::{Dialect, Session};
use crate::sidecar::Weir;
use crate::text::Moment;

/// What stands between the client and the provider.
pub(crate) enum Way<'a> {
    /// Nothing.
    Off,
    Through(&'a mut Weir),
}

/// A call on its way.
pub(crate) struct Sent<'a> {
    pub(crate) api: Dialect,
    /// Number of the session, each of which has a key of its own.
    pub(crate) session: usize,
    pub(crate) body: String,
    /// By the clocks of Weir and of the provider, in milliseconds since the Unix epoch.
    pub(crate) unix_ms: i64,
    /// What the provider will be asked, to compare its answers with.
    pub(crate) desk: &'a mut Desk,
}

/// A session under way, on an account of its own.
pub(crate) struct Replay<'a> {
    session: &'a Session,
    index: usize,
    desk: Desk,
    /// When the last call was made, in milliseconds since the Unix epoch.
    unix_ms: i64,
    /// When it began, where its calls are made at once, whatever their prompts say of the time.
    at_once: Option<i64>,
    conversations: Vec<Conversation<'a>>,
    /// The whole prompt of each one's last call, as the provider saw it.
    last: Vec<Option<u64>>,
    pub(crate) replayed: Replayed,
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

impl<'a> Replay<'a> {
    pub(crate) fn begin(session: &'a Session, index: usize) -> Self {
        let start: jiff::Timestamp = session.start.parse().expect("a time");
        let unix_ms = start.as_millisecond();
        let begin = |conversation| {
            let moment = Moment {
                session: index,
                conversation,
                turn: 0,
                unix_ms,
            };
            Conversation::begin(session, moment)
        };
        let conversations: Vec<_> = (0..session.conversations).map(begin).collect();
        Self {
            session,
            index,
            desk: Desk::default(),
            unix_ms,
            at_once: None,
            last: vec![None; conversations.len()],
            conversations,
            replayed: Replayed::default(),
        }
    }

    /// The same, its calls a moment apart by the clocks of the provider and of Weir.
    pub(crate) fn at_once(session: &'a Session, index: usize) -> Self {
        let replay = Self::begin(session, index);
        Self {
            at_once: Some(replay.unix_ms),
            ..replay
        }
    }

    /// All turns.
    pub(crate) async fn whole(mut self, way: &mut Way<'_>) -> Replayed {
        for turn in 0..self.session.turns {
            self.turn(turn, way).await;
        }
        self.replayed
    }

    /// A turn of each conversation; none, if the session is over.
    pub(crate) async fn turn(&mut self, turn: usize, way: &mut Way<'_>) {
        if turn >= self.session.turns {
            return;
        }
        let pause = self.session.pause.filter(|(at, _)| *at == turn);
        let away = pause.map_or(0, |(_, seconds)| seconds);
        self.unix_ms += i64::try_from(away * 1000).unwrap();
        for number in 0..self.conversations.len() {
            self.unix_ms += i64::try_from(self.session.step * 1000).unwrap() + 137;
            self.call(number, turn, way).await;
        }
    }

    async fn call(&mut self, number: usize, turn: usize, way: &mut Way<'_>) {
        let conversation = &mut self.conversations[number];
        conversation.moment.unix_ms = self.unix_ms;
        let calls = i64::try_from(self.replayed.calls).unwrap();
        let sent = Sent {
            api: self.session.api,
            session: self.index,
            body: conversation.body(),
            unix_ms: self.at_once.map_or(self.unix_ms, |start| start + calls),
            desk: &mut self.desk,
        };
        self.replayed.calls += 1;
        let served = match way {
            Way::Off => sent.serve(None),
            Way::Through(weir) => weir.pass(sent).await,
        };
        match served {
            Ok(served) => {
                self.replayed.add(&served.usage, served.nanodollars);
                let before =
                    std::mem::replace(&mut self.last[number], served.prefixes.last().copied());
                if before.is_some_and(|before| !served.prefixes.contains(&before)) {
                    let torn = format!("conversation {number}, turn {turn}");
                    self.replayed.torn.push(torn);
                }
                conversation.answer(&served.signature);
            }
            Err(refused) => {
                let message = format!(
                    "conversation {number}, turn {turn}: {} {}",
                    refused.status, refused.message
                );
                self.replayed.refused.push(message);
                conversation.answer("");
            }
        }
    }
}

impl Sent<'_> {
    /// What the provider says to the call, or to what of it `arrived`.
    pub(crate) fn serve(
        self,
        arrived: Option<&[u8]>,
    ) -> Result<weir_simulator::Served, weir_simulator::Refused> {
        let api = match self.api {
            Dialect::Messages => Api::Messages,
            Dialect::Chat => Api::ChatCompletions,
            Dialect::Responses => Api::Responses,
        };
        let body = arrived.unwrap_or(self.body.as_bytes());
        let now = Duration::from_millis(u64::try_from(self.unix_ms).unwrap());
        self.desk.serve(api, "an account", body, now)
    }
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
