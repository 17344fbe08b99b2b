//! The calls under way on one socket, and the record of each.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Uri;
use weir_core::answer::{AnswerReader, Form};
use weir_core::api::Api;
use weir_core::call::{self, Call};
use weir_core::caps::Exceeded;
use weir_core::refusal::Reason;
use weir_core::socket::{self, Create, Said, Step};

use super::super::credential::Kind;
use super::super::entry::{End, Entry};
use crate::accept;
use crate::decrypt::Session;
use crate::ledger::Record;
use crate::sidecar::{Context, Rules};

/// Calls that are under way at once on one socket. More are forwarded unread: providers answer far fewer.
const CALLS_MAX: usize = 256;

/// The calls of one socket.
pub(in super::super) struct Calls {
    pub(super) context: Arc<Context>,
    rules: Arc<Rules>,
    session: Arc<Session>,
    /// The record of the socket itself: who opened it, and where to.
    carrier: Record,
    credential: Option<Kind>,
    api: Api,
    /// The model that the address of the socket names, or the provider for the session.
    model: Option<String>,
    open: Vec<Open>,
}

/// A call whose answer is not complete.
struct Open {
    entry: Box<Entry>,
    reader: AnswerReader,
    lane: Option<String>,
    event_id: Option<String>,
    response_id: Option<String>,
    /// The cap that is in its way although it is under way.
    beyond: Option<Box<Exceeded>>,
}

/// Why a call is not forwarded.
enum Refused {
    Cap(Box<Exceeded>),
    NoPrice(String),
}

/// What is to be done with a message of the application.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Forward,
    /// It is answered with this message.
    Refuse(Vec<u8>),
}

impl Calls {
    /// Of the socket that `carrier` is the open record of, at `uri`.
    pub(in super::super) fn new(carrier: &Entry, api: Api, uri: &Uri) -> Self {
        // Azure's older address names a deployment.
        let model = uri.query().and_then(|query| {
            let named = |name| query.split('&').find_map(|pair| pair.strip_prefix(name));
            named("model=")
                .or_else(|| named("deployment="))
                .map(str::to_owned)
        });
        Self {
            context: Arc::clone(&carrier.context),
            rules: Arc::clone(&carrier.rules),
            session: Arc::clone(&carrier.session),
            carrier: carrier.record.clone(),
            credential: carrier.credential,
            api,
            model,
            open: Vec::new(),
        }
    }

    pub(super) fn fails_closed(&self) -> bool {
        self.rules.config.intercept.fail == crate::process::config::Fail::Closed
    }

    /// Counts what passes without being read.
    pub(super) fn unread(&self, what: &str) {
        let (origin, route) = (&self.session.origin, self.session.upstream.route());
        accept::report_unread(&self.context, origin, &route.host, what);
    }

    /// Judges a message of the application.
    pub(super) fn asked(&mut self, message: &[u8]) -> Verdict {
        match socket::create(self.api, message) {
            Ok(None) => Verdict::Forward,
            Ok(Some(create)) => self.create(create, message),
            Err(unreadable) => {
                if !self.fails_closed() {
                    self.unread("socket_message");
                    return Verdict::Forward;
                }
                let detail = unreadable.to_string();
                let reason = Reason::Unreadable { detail: &detail };
                let rendered = self.entry().denied(self.api, &reason);
                Verdict::Refuse(socket::refusal(rendered.status, &rendered.body, None))
            }
        }
    }

    fn create(&mut self, create: Create, message: &[u8]) -> Verdict {
        if self.open.len() >= CALLS_MAX {
            self.unread("socket_calls");
            return Verdict::Forward;
        }
        let mut entry = self.entry();
        entry.read = Some(Instant::now());
        entry.record.request_bytes = u64::try_from(message.len()).unwrap_or(u64::MAX);
        entry.take_call(self.named(create.call.clone()), message);
        let refused = match entry.refused_for_no_price() {
            Some(model) => Err(Refused::NoPrice(model)),
            None => entry.admit_at_once().map_err(Refused::Cap),
        };
        if let Err(refused) = refused {
            let rendered = match refused {
                Refused::Cap(exceeded) => entry.refused(self.api, &exceeded),
                Refused::NoPrice(model) => {
                    entry.denied(self.api, &Reason::Unpriced { model: &model })
                }
            };
            let lane = create.lane.as_deref();
            return Verdict::Refuse(socket::refusal(rendered.status, &rendered.body, lane));
        }
        entry.sending();
        // What is asked for in Realtime builds on what was said before it in its socket.
        if self.api == Api::Responses && entry.is_explained() {
            let message = Bytes::copy_from_slice(message);
            entry.keep_for_sketch(message.clone(), message);
            entry.hand_over();
        }
        self.open.push(Open {
            entry,
            reader: AnswerReader::new(self.api, Form::EventStream),
            lane: create.lane,
            event_id: create.event_id,
            response_id: None,
            beyond: None,
        });
        Verdict::Forward
    }

    /// The call with the model of the socket, where it names none.
    fn named(&self, mut call: Call) -> Call {
        call.model = call.model.or_else(|| self.model.clone());
        call
    }

    fn entry(&self) -> Box<Entry> {
        let mut entry = Entry::on_socket(
            Arc::clone(&self.context),
            Arc::clone(&self.rules),
            Arc::clone(&self.session),
            &self.carrier,
            self.api,
        );
        entry.credential = self.credential;
        entry
    }

    /// Reads a message of the provider. What is returned ends the socket after it: its response has
    /// outgrown its cap.
    pub(super) fn said(&mut self, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        let said = socket::said(message)?;
        if said.step == Step::Unrelated {
            self.model = said.model.or_else(|| self.model.take());
            return None;
        }
        let at = self.find(&said).or_else(|| self.begun_unasked(&said))?;
        let open = self.open.get_mut(at)?;
        if open.response_id.is_none() {
            open.response_id = said.response_id;
            open.entry.first_byte();
            if let Some(id) = &open.response_id {
                open.entry.hand_on(id);
            }
        }
        let length = u64::try_from(message.len()).unwrap_or(u64::MAX);
        let record = &mut open.entry.record;
        record.response_bytes = record.response_bytes.saturating_add(length);
        open.reader.push_event(message);
        if matches!(said.step, Step::Ends | Step::Fails) {
            self.open.remove(at).finish(End::Complete);
            return None;
        }
        let seen = open.reader.output_tokens_seen();
        let exceeded = open.beyond.take().or_else(|| open.entry.grow(seen).err())?;
        Some(self.open.remove(at).cut_off(self.api, *exceeded))
    }

    /// Which call a message is about.
    fn find(&self, said: &Said) -> Option<usize> {
        let position = |is: &dyn Fn(&Open) -> bool| self.open.iter().position(is);
        let by_id = said
            .response_id
            .as_ref()
            .and_then(|id| position(&|open| open.response_id.as_ref() == Some(id)));
        if by_id.is_some() {
            return by_id;
        }
        if let Some(event) = &said.event_id {
            return position(&|open| open.event_id.as_ref() == Some(event));
        }
        let in_lane = |open: &Open| open.lane == said.lane;
        match (said.step, self.api) {
            // Most errors of Realtime are about other events than those that ask for a response.
            (Step::Fails, Api::Realtime) => position(&|open| open.response_id.is_none()),
            (Step::Begins, _) => position(&|open| in_lane(open) && open.response_id.is_none()),
            _ => position(&|open| {
                in_lane(open) && (open.response_id.is_none() || said.response_id.is_none())
            }),
        }
    }

    /// Opens the record of a response that the provider began by itself (Realtime), or for a message
    /// that was not read. It is too late to refuse it: one that is beyond a cap is to be ended.
    fn begun_unasked(&mut self, said: &Said) -> Option<usize> {
        if said.step != Step::Begins || self.open.len() >= CALLS_MAX {
            return None;
        }
        let mut call = call::parse(self.api, b"{\"stream\":true}").ok()?;
        call.model.clone_from(&said.model);
        let mut entry = self.entry();
        entry.take_call(self.named(call), &[]);
        let beyond = entry.admit_at_once().err();
        if beyond.is_some() {
            entry.expect_unreserved();
        }
        entry.sending();
        self.open.push(Open {
            entry,
            reader: AnswerReader::new(self.api, Form::EventStream),
            lane: said.lane.clone(),
            event_id: None,
            response_id: None,
            beyond,
        });
        Some(self.open.len().saturating_sub(1))
    }

    /// Ends the calls under way: no more of their answers will come.
    pub(super) fn end(&mut self, end: End) {
        for open in self.open.drain(..) {
            open.finish(end);
        }
    }
}

impl Open {
    fn finish(mut self, end: End) {
        let answer = self.reader.finish();
        self.entry.finish(Some(&answer), end);
    }

    /// Ends the response by the cap that is in its way; what its application is to be told.
    fn cut_off(mut self, api: Api, exceeded: Exceeded) -> Vec<Vec<u8>> {
        let id = self.response_id.as_deref();
        let lane = self.lane.as_deref();
        let events = socket::end(api, &exceeded, &self.entry.record.id, id, lane);
        self.entry.note_cut_off(exceeded);
        self.finish(End::CutOff);
        events
    }
}
