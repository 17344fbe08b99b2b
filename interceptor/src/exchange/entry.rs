//! The open record of an exchange: written exactly once, on every way out.
//!
//! Each way out ends in `finish`. What ends without it was dropped, because the application went
//! away, and `Drop` finishes that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::sync::OwnedSemaphorePermit;
use weir_core::answer::Answer;
use weir_core::api::{self, Api, Endpoint, SaidByPath};
use weir_core::call::{self, Call};
use weir_core::caps::{Amount, Ticket};
use weir_core::edit;
use weir_core::pricing::{self, PriceTable};
use weir_core::usage::Usage;

use super::credential::{Kind, Sender};
use super::edit::{Decoded, is_signed};
use super::explain::{Bodies, Explaining, Unexplained};
use super::growth::Growth;
use super::priced::{Priced, Terms};
use super::resend::Kept;
use super::rewrite::{Considered, Read};
use crate::accept;
use crate::decrypt::Session;
use crate::forward::SendError;
use crate::ledger::{Cost, Outcome, Record, new_id};
use crate::process::config::{Fail, Subscriptions, Unpriced};
use crate::sidecar::{Context, Rules};

/// An exchange whose record is not written yet.
pub(super) struct Entry {
    pub(super) context: Arc<Context>,
    pub(super) rules: Arc<Rules>,
    pub(super) session: Arc<Session>,
    pub(super) endpoint: Endpoint,
    pub(super) record: Record,
    /// The prices when the request came.
    pub(super) prices: Arc<PriceTable>,
    pub(super) opened: Instant,
    /// When all of the request that is read had been read.
    pub(super) read: Option<Instant>,
    /// When the request was forwarded.
    pub(super) sent: Option<Instant>,
    /// The batch or file whose results are asked for.
    pub(super) results_of: String,
    /// Another answer told how a response in the background ended, and its usage was counted there.
    pub(super) told_before: bool,
    /// What its own answer showed of a response in the background, before that broke off.
    pub(super) begun: Option<Usage>,
    /// What the path says of the call; taken when the body has been read.
    pub(super) said: SaidByPath,
    pub(super) call: Option<Call>,
    /// What is known of the call.
    pub(super) terms: Terms,
    /// What stands behind its credential, if it has one.
    pub(super) credential: Option<Kind>,
    /// Which conversation the call belongs to.
    pub(super) conversation: u64,
    /// Whether its session is still to be handed on to what continues its answer.
    pub(super) hands_on: bool,
    /// The body without its encoding, if it has one; taken when the edits are made.
    pub(super) decoded: Option<Decoded>,
    /// Whether the client vouches for the bytes of the request: it is never edited then.
    pub(super) signed: bool,
    pub(super) edits: Vec<edit::Edit>,
    /// What was, or would have been, done to the prompt, if that was planned before it is sent; taken
    /// when it is handed over.
    pub(super) considered: Option<Considered>,
    /// The prompt as it was read before its plan is made, if it was.
    pub(super) recalled: Option<Read>,
    pub(super) reserved: Amount,
    /// What is reserved for its stream, where a cap wants that to be followed.
    pub(super) growth: Option<Growth>,
    /// Tokens that were used, as far as they are known.
    pub(super) counted: Option<u64>,
    pub(super) ticket: Option<Ticket>,
    /// The request, until it is known that its history is not refused.
    pub(super) again: Option<Box<Kept>>,
    /// The body as it came and as it is sent, until they are handed over.
    pub(super) to_sketch: Option<Bodies>,
    /// The body as it reads, where a plan is still to be made of what would be done to its prompt.
    pub(super) to_watch: Option<Bytes>,
    /// What is being found out about its prompt.
    pub(super) explaining: Option<Explaining>,
    /// What is to be added to the record when that is found out.
    pub(super) unexplained: Option<Box<Unexplained>>,
    /// Held until the provider has the body.
    pub(super) body_memory: Option<OwnedSemaphorePermit>,
    written: bool,
}

/// How an exchange came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All of the answer was passed on.
    Complete,
    /// The provider's connection broke in the middle of the answer.
    Broken,
    /// The application went away.
    ClientGone,
    /// Weir ended the answer: nothing is left under a cap.
    CutOff,
    /// Nothing was sent to the provider.
    NotSent,
    /// The request was sent, and no answer came.
    NotAnswered,
}

impl Entry {
    /// Opens the record when the head of the request has been read.
    pub(super) fn open<B>(
        context: Arc<Context>,
        rules: Arc<Rules>,
        session: Arc<Session>,
        request: &Request<B>,
    ) -> Box<Self> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let endpoint = api::recognize(session.provider, request.method().as_str(), path);
        let mut identity = session.origin.application.identity.clone();
        let sender = Sender {
            provider: session.provider,
            host: session.upstream.route().host.as_ref(),
            path,
            headers: request.headers(),
        };
        let credential = context.keyring.recognize(&sender, &session.credential);
        let kind = credential.as_ref().map(|credential| credential.kind);
        if let Some(credential) = credential {
            identity.key_hash = Some(credential.hash);
            identity.key_tail = credential.tail;
            identity.key_kind = Some(credential.kind.as_str().to_owned());
        }
        if identity.team.is_none() && !rules.config.teams.is_empty() {
            identity.team = rules.config.team_of(&identity.caller());
        }
        let (api, said) = match endpoint {
            Endpoint::Call(api) => (api.as_str(), api::said_by_path(api, path)),
            _ => ("", SaidByPath::default()),
        };
        let field = |name| request.headers().get(name)?.to_str().ok();
        let started_unix_ms = context.clock.unix_ms();
        let record = Record {
            id: new_id(started_unix_ms),
            started_unix_ms,
            identity,
            session: call::session_of_headers(field).map(str::to_owned),
            destination: session.origin.destination.to_string(),
            host: session.upstream.route().host.to_string(),
            provider: session.provider.as_str().to_owned(),
            api: api.to_owned(),
            method: request.method().as_str().to_owned(),
            path_class: endpoint.class().to_owned(),
            outcome: Outcome::ClientGone,
            ..Record::default()
        };
        let mut entry = Self::of(context, rules, session, endpoint, said, record);
        entry.credential = kind;
        entry.signed = is_signed(request.headers(), request.uri().query());
        if let Endpoint::Later(_) = endpoint {
            api::holder_of_results(path).clone_into(&mut entry.results_of);
        }
        entry
    }

    /// Opens the record of a call that is made inside a socket, whose own record is `carrier`.
    pub(super) fn on_socket(
        context: Arc<Context>,
        rules: Arc<Rules>,
        session: Arc<Session>,
        carrier: &Record,
        api: Api,
    ) -> Box<Self> {
        let endpoint = Endpoint::Call(api);
        let record = Record {
            id: uuid::Uuid::now_v7().to_string(),
            started_unix_ms: context.clock.unix_ms(),
            api: api.as_str().to_owned(),
            path_class: endpoint.class().to_owned(),
            outcome: Outcome::ClientGone,
            ..carrier.clone()
        };
        let said = SaidByPath::default();
        Self::of(context, rules, session, endpoint, said, record)
    }

    pub(super) fn of(
        context: Arc<Context>,
        rules: Arc<Rules>,
        session: Arc<Session>,
        endpoint: Endpoint,
        said: SaidByPath,
        record: Record,
    ) -> Box<Self> {
        context.metrics.in_flight.inc();
        Box::new(Self {
            prices: context.prices(),
            context,
            rules,
            session,
            endpoint,
            record,
            opened: Instant::now(),
            read: None,
            sent: None,
            results_of: String::new(),
            told_before: false,
            begun: None,
            said,
            call: None,
            terms: Terms::default(),
            credential: None,
            conversation: 0,
            hands_on: false,
            decoded: None,
            signed: false,
            edits: Vec::new(),
            considered: None,
            recalled: None,
            reserved: Amount::ZERO,
            growth: None,
            counted: None,
            ticket: None,
            again: None,
            to_sketch: None,
            to_watch: None,
            explaining: None,
            unexplained: None,
            body_memory: None,
            written: false,
        })
    }

    /// Whether what can't be read is to be refused.
    pub(super) fn fails_closed(&self) -> bool {
        self.rules.config.intercept.fail == Fail::Closed
    }

    /// Notes that the request is forwarded without being understood.
    pub(super) fn unread(&mut self, reason: &'static str) {
        let origin = &self.session.origin;
        accept::report_unread(&self.context, origin, &self.record.host, reason);
        self.record.reasons.push(reason.to_owned());
        self.call = None;
    }

    /// Notes that the request is being forwarded.
    pub(super) fn sending(&mut self) {
        let now = Instant::now();
        let added = now.duration_since(self.read.unwrap_or(self.opened));
        self.record.timings.added_us = micros(added);
        self.context.metrics.added.observe(added.as_secs_f64());
        self.sent = Some(now);
    }

    /// Notes the head of the answer.
    pub(super) fn answered(&mut self, status: http::StatusCode) {
        self.record.status = Some(status.as_u16());
        self.body_memory = None;
        self.again = None;
        self.first_byte();
    }

    /// Notes that the answer begins.
    pub(super) fn first_byte(&mut self) {
        if let Some(sent) = self.sent {
            let waited = sent.elapsed();
            self.record.timings.upstream_first_byte_us = Some(micros(waited));
            self.context
                .metrics
                .first_byte
                .observe(waited.as_secs_f64());
        }
    }

    /// Ends an exchange to which the provider gave no answer.
    pub(super) fn failed(mut self: Box<Self>, error: &SendError) {
        tracing::warn!(%error, id = self.record.id, "a request got no answer");
        let end = match error {
            SendError::Dial(_) | SendError::Request(_) => End::NotSent,
            SendError::Broken(_) => End::NotAnswered,
        };
        self.finish(None, end);
    }

    /// The call with what its price depends on, if it was read.
    pub(super) fn priced(&self) -> Option<Priced<'_>> {
        Some(self.priced_at(self.call.as_ref()?, &self.terms))
    }

    /// Looks up what is known of a call, if it were this one.
    pub(super) fn terms_of(&self, call: &Call) -> Terms {
        let unknown = Terms::default();
        self.context.memory.terms(&self.priced_at(call, &unknown))
    }

    /// What the price of a call depends on, if it were this one, on terms that were looked up.
    pub(super) fn priced_at<'a>(&'a self, call: &'a Call, terms: &'a Terms) -> Priced<'a> {
        Priced {
            provider: self.session.provider,
            model: call.model.as_deref().unwrap_or_default(),
            call,
            at_unix: self.record.started_unix_ms.div_euclid(1000),
            host: &self.record.host,
            regional: pricing::is_regional(self.session.provider.as_str(), &self.record.host),
            workload: self.workload(),
            conversation: self.conversation,
            is_free: self.is_paid_by_a_plan(),
            flat_picos: match self.rules.config.pricing.unpriced {
                Unpriced::Flat { picos_per_token } => Some(picos_per_token),
                Unpriced::Allow | Unpriced::Refuse => None,
            },
            prices: &self.prices,
            terms,
        }
    }

    /// Whose answers are alike: one key's, else one program's.
    fn workload(&self) -> &str {
        let identity = &self.record.identity;
        let workload = identity.key_hash.as_ref().or(identity.program.as_ref());
        workload.map_or("", String::as_str)
    }

    /// Whether the credential is of a plan, and what a plan pays for does not count as spent.
    pub(super) fn is_paid_by_a_plan(&self) -> bool {
        self.rules.config.pricing.subscriptions == Subscriptions::Notional
            && self.credential == Some(Kind::Subscription)
    }

    /// Writes the record and settles what was reserved, unless it is to be told later how the call
    /// ends. Only the first call does anything.
    pub(super) fn finish(&mut self, answer: Option<&Answer>, end: End) {
        self.hand_on_at_end(answer);
        if !self.written && !self.waits(answer, end) {
            self.write(answer, end);
        }
        self.written = true;
    }

    /// Writes the record and settles what was reserved.
    pub(super) fn write(&mut self, answer: Option<&Answer>, end: End) {
        self.written = true;
        self.record.timings.total_us = micros(self.opened.elapsed());
        self.settle(answer, end);
        self.context.metrics.in_flight.dec();
        let record = std::mem::take(&mut self.record);
        self.context.metrics.record(&record);
        self.count(&record);
        let journaled = self.context.ledger.write_down(record);
        self.complete(journaled);
    }
}

impl Entry {
    /// Adds to what is said at the end of `weir run`.
    fn count(&self, record: &Record) {
        let Endpoint::Call(_) = self.endpoint else {
            if record.cost == Cost::Unknown {
                let mut totals = self.context.totals();
                totals.unknown_requests = totals.unknown_requests.saturating_add(1);
            }
            return;
        };
        let mut totals = self.context.totals();
        let count = match record.outcome {
            Outcome::Refused { .. } => &mut totals.refused,
            Outcome::Denied => &mut totals.denied,
            _ => &mut totals.calls,
        };
        *count = count.saturating_add(1);
        totals.spend += record.cost.spent();
        totals.unpriced = totals
            .unpriced
            .saturating_add(u64::from(record.cost == Cost::Unpriced));
        if let Some(usage) = &record.usage {
            totals.prompt_tokens = totals.prompt_tokens.saturating_add(usage.prompt());
            totals.cache_read_tokens = totals.cache_read_tokens.saturating_add(usage.cache_read);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.finish(None, End::ClientGone);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
