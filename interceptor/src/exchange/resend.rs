//! Sends a call again in other forms, where its provider refused the history in it.
//!
//! Some models bind the signatures of their thinking to all that came before, and refuse a call (400) whose
//! history is another one: for good, since the client sends the same again. Where Weir's memory of a conversation
//! was lost, or is that of another, what it sends is such a history, and another form of the same request is not.
//! So the error is read, other forms are sent one after the other for as long as each is refused like this, and
//! the client sees only the answer to the one that is not. Where all are refused, it gets the refusal of what it
//! sent itself: of the form as it came, or else of the first. Where another error comes, or a form could not be
//! sent, no more are tried. Where one was sent and got no answer, the call has none and costs what was reserved:
//! its provider may have worked on it.
//!
//! What was refused is remembered, so that no later turn is sent again as that. A call is sent again for this
//! error alone, and only where its prompt has thinking in it that was signed. What is known of it then is kept
//! until the head of its answer is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use weir_core::edit::{self, Edit};
use weir_core::rewrite::{Form, may_be_bound, refuses_history};

use super::answer;
use super::decode::{self, Encoding};
use super::edit::{ACCEPT_ENCODING, Edited, edited, recorded};
use super::entry::Entry;
use super::response::Response;
use super::rewrite::Forms;
use crate::forward::{Begun, RequestBody, SendError, UpstreamBody};
use crate::ledger;
use crate::process::limits;

/// A request that may be sent again.
pub(super) struct Kept {
    head: Parts,
    trailers: Option<Box<HeaderMap>>,
    /// The body as it came.
    came: Bytes,
    /// The edits that have nothing to do with the prompt.
    own: Vec<Edit>,
    /// Whether breakpoints cost more than they save.
    unmarked: bool,
}

/// A request that is sent again.
struct Again {
    kept: Kept,
    encoding: Encoding,
    /// The body as it came, without its encoding.
    plain: Bytes,
    forms: Forms,
    /// How often it was sent again.
    tries: usize,
}

/// Another form of a call.
struct Attempt {
    form: Form,
    body: Edited,
    /// What makes it of the body that came.
    edits: Vec<Edit>,
    /// Those of them that the form is.
    planned: Vec<Edit>,
}

/// A refusal, and what the record says of the form that it is the answer to.
struct Refused {
    answer: http::Response<UpstreamBody>,
    edits: Vec<Edit>,
    recorded: Vec<ledger::Edit>,
    sent: Option<Instant>,
}

/// Passes on the answer to a call that [may go again](Entry::may_go_again): this one, or that to
/// another form of it.
///
/// # Errors
///
/// Another form was sent and not answered. The exchange has ended then.
pub(super) async fn answer(
    mut entry: Box<Entry>,
    first: http::Response<UpstreamBody>,
) -> Result<Response, SendError> {
    let (first, is_refusal) = read(first).await;
    let kept = entry.again.take().filter(|_| is_refusal);
    let Some(mut again) = kept.and_then(|kept| entry.again(*kept)) else {
        return Ok(answer::observe(entry, first));
    };
    let mut refused = entry.note_refusal(first, &again);
    let (rules, session) = (Arc::clone(&entry.rules), Arc::clone(&entry.session));
    while let Some(attempt) = entry.next_attempt(&mut again) {
        entry.begin(&attempt);
        let request = again.request(&attempt.body);
        match rules.forwarder.send(&session.upstream, request).await {
            Ok(response) if is_taken(response.status()) => {
                entry.taken(again, attempt, response.status());
                return Ok(answer::observe(entry, response));
            }
            Ok(response) => {
                let (response, is_refusal) = read(response).await;
                if !is_refusal {
                    break;
                }
                let latest = entry.note_refusal(response, &again);
                if attempt.form == Form::AsItCame {
                    refused = latest;
                }
            }
            Err(error @ SendError::Broken(_)) => {
                entry.count_again("not_answered");
                entry.failed(&error);
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%error, id = entry.record.id, "a request could not be sent again");
                break;
            }
        }
    }
    let refused = entry.give_up(refused, &again);
    Ok(answer::observe(entry, refused))
}

/// Reads an answer if it may be the refusal of a history; whether it is one.
async fn read(response: http::Response<UpstreamBody>) -> (http::Response<UpstreamBody>, bool) {
    if response.status() != StatusCode::BAD_REQUEST {
        return (response, false);
    }
    let (head, body) = response.into_parts();
    let body = Begun::read(body, ERROR_BYTES_MAX, ERROR_WAIT_MAX).await;
    let error = body.whole();
    let is_refusal = error.is_some_and(|error| is_refusal(&head.headers, error));
    let body = UpstreamBody::Begun(Box::new(body));
    (http::Response::from_parts(head, body), is_refusal)
}

impl Entry {
    /// Keeps a request, if its history may be refused: there is thinking in it, and it may be edited.
    pub(super) fn keep_to_go_again(
        &mut self,
        head: &Parts,
        trailers: Option<&HeaderMap>,
        came: Bytes,
    ) {
        let (Some(call), Some(considered)) = (&self.call, &self.considered) else {
            return;
        };
        let model = call.model.as_deref().unwrap_or_default();
        let prompt = &considered.prompt;
        if !self.may_edit() || !may_be_bound(call.api, model, (&came, prompt)) {
            return;
        }
        let made = self.edits.iter();
        let own = made
            .filter(|edit| !considered.plan.edits.contains(edit))
            .cloned();
        self.again = Some(Box::new(Kept {
            head: head.clone(),
            trailers: trailers.cloned().map(Box::new),
            came,
            own: own.collect(),
            unmarked: considered.measured.shown.unmarked,
        }));
    }

    /// Whether an answer may be the refusal of a history, of a call that may be sent otherwise.
    pub(super) fn may_go_again(&self, status: StatusCode) -> bool {
        status == StatusCode::BAD_REQUEST && self.again.is_some()
    }

    /// What it takes to send a refused request again; none, if that can't be.
    fn again(&self, kept: Kept) -> Option<Again> {
        let encoding = encoding_of(&kept.head.headers)?;
        let plain = match encoding {
            Encoding::Identity => kept.came.clone(),
            Encoding::Gzip | Encoding::Deflate | Encoding::Brotli | Encoding::Zstd => {
                decode::decode(encoding, &kept.came, limits::BODY_BYTES_MAX)
                    .ok()?
                    .into()
            }
        };
        let sent = edit::apply(&plain, &mut self.edits.clone()).ok()?;
        let forms = self.forms(&plain, &sent, kept.unmarked)?;
        Some(Again {
            kept,
            encoding,
            plain,
            forms,
            tries: 0,
        })
    }

    /// The next form of a request, if there is one.
    fn next_attempt(&self, again: &mut Again) -> Option<Attempt> {
        if again.tries == TRIES_MAX {
            return None;
        }
        let other = self.next_form(&mut again.forms, &again.plain)?;
        again.tries = again.tries.saturating_add(1);
        let Again {
            kept,
            encoding,
            plain,
            ..
        } = again;
        let mut edits = [&kept.own[..], &other.planned, &other.marks].concat();
        let body = if edits.is_empty() {
            Edited {
                body: kept.came.clone(),
                plain: plain.clone(),
            }
        } else {
            edited(plain, &mut edits, *encoding).ok()?
        };
        Some(Attempt {
            form: other.form,
            body,
            edits,
            planned: other.planned,
        })
    }

    /// Notes that another form is being sent.
    fn begin(&mut self, attempt: &Attempt) {
        let before = std::mem::take(&mut self.record.edits);
        let of_head = before.iter().filter(|edit| edit.rule == ACCEPT_ENCODING);
        self.record.edits = recorded(&attempt.edits).chain(of_head.cloned()).collect();
        self.edits.clone_from(&attempt.edits);
        self.sent = Some(Instant::now());
    }

    /// Notes that the form that was sent last is refused.
    fn note_refusal(&self, answer: http::Response<UpstreamBody>, again: &Again) -> Refused {
        self.remember_refusal(&again.forms, &again.plain);
        Refused {
            answer,
            edits: self.edits.clone(),
            recorded: self.record.edits.clone(),
            sent: self.sent,
        }
    }

    /// Notes that another form was not refused, and remembers that if it was answered.
    fn taken(&mut self, again: Again, attempt: Attempt, status: StatusCode) {
        self.count_again(attempt.form.as_str());
        if status.is_success() {
            self.remember_form(&again.forms, &again.plain, attempt.form, &attempt.planned);
        }
        // What was planned was not sent, so that it has brought nothing.
        self.keep_for_sketch(again.plain, attempt.body.plain);
        self.hand_over();
    }

    /// Notes that a refusal is the answer that counts.
    fn give_up(&mut self, refused: Refused, again: &Again) -> http::Response<UpstreamBody> {
        if again.tries > 0 {
            self.count_again("in_vain");
        } else if again.forms.were_refused() {
            let known = ["known_in_vain"];
            self.context
                .metrics
                .sent_again
                .with_label_values(&known)
                .inc();
            self.record.reasons.push("not_sent_again".to_owned());
        }
        self.edits = refused.edits;
        self.record.edits = refused.recorded;
        self.sent = refused.sent;
        refused.answer
    }

    fn count_again(&mut self, result: &'static str) {
        let sent_again = &self.context.metrics.sent_again;
        sent_again.with_label_values(&[result]).inc();
        self.record.reasons.push(format!("sent_again_{result}"));
    }
}

impl Again {
    /// The request with another body.
    fn request(&self, body: &Edited) -> Request<RequestBody> {
        let mut head = self.kept.head.clone();
        let announced = head.headers.contains_key(CONTENT_LENGTH);
        if announced {
            let length = HeaderValue::from(body.body.len());
            head.headers.insert(CONTENT_LENGTH, length);
        }
        let body = RequestBody::Full {
            bytes: body.body.clone(),
            trailers: self.kept.trailers.clone(),
            announced,
        };
        Request::from_parts(head, body)
    }
}

/// Whether an error is the refusal of a history.
fn is_refusal(headers: &HeaderMap, error: &[u8]) -> bool {
    let decoded = |encoding| decode::decode(encoding, error, ERROR_BYTES_MAX);
    let decoded = encoding_of(headers).and_then(|encoding| decoded(encoding).ok());
    decoded.is_some_and(|error| refuses_history(&error))
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let encoding = headers.get(CONTENT_ENCODING);
    Encoding::of(encoding.map(|value| value.to_str().unwrap_or("?")))
}

/// Whether another form was taken, or may be when it is tried again: any other error than these would
/// hide from the client that its history is refused.
fn is_taken(status: StatusCode) -> bool {
    let may_be = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::CONFLICT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_client_error() || may_be.contains(&status)
}

/// How often a call is sent again.
const TRIES_MAX: usize = 3;
/// Of an error that is read before it is passed on, encoded and decoded. Longer ones are others.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long such an error is waited for.
const ERROR_WAIT_MAX: Duration = Duration::from_secs(10);
