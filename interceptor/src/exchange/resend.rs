//! Sends a call once more in another form, where its provider refused the history in it.
//!
//! Some models bind the signatures of their thinking to all that came before, and refuse a call (400) whose
//! history is another one: for good, since the client sends the same again. Where Weir's memory of a conversation
//! was lost, or is that of another, what it sends is such a history, and another form of the same request is not.
//! So the error is read, the other form is sent, and the client sees only the answer to that. Where that is
//! refused too, or could not be sent, it gets the first answer as it came. Where that was sent and got no answer,
//! the call has none and costs what was reserved: its provider may have worked on it.
//!
//! A call is sent again once at most, for this error alone, and only where its prompt has thinking in it that was
//! signed. What is known of it then is kept until the head of its answer is there.

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
}

/// Another form of a call.
struct Attempt {
    form: Form,
    /// The forms of which this is one.
    forms: Forms,
    head: Parts,
    trailers: Option<Box<HeaderMap>>,
    /// The body as it came, without its encoding.
    plain: Bytes,
    /// The body in this form, and what makes it of the plain one.
    body: Edited,
    edits: Vec<Edit>,
    /// Those of them that the form is.
    planned: Vec<Edit>,
}

/// What the record says of the form that was refused.
struct First {
    edits: Vec<Edit>,
    recorded: Vec<ledger::Edit>,
    sent: Option<Instant>,
}

/// Passes on the answer to a call that [may go again](Entry::may_go_again): this one, or that to
/// another form of it.
///
/// # Errors
///
/// The other form was sent and not answered. The exchange has ended then.
pub(super) async fn answer(
    mut entry: Box<Entry>,
    refused: http::Response<UpstreamBody>,
) -> Result<Response, SendError> {
    let (head, body) = refused.into_parts();
    let body = Begun::read(body, ERROR_BYTES_MAX, ERROR_WAIT_MAX).await;
    let error = body.whole();
    let is_refusal = error.is_some_and(|error| is_refusal(&head.headers, error));
    let refused = http::Response::from_parts(head, UpstreamBody::Begun(Box::new(body)));
    let kept = entry.again.take().filter(|_| is_refusal);
    let Some(attempt) = kept.and_then(|kept| entry.other(*kept)) else {
        return Ok(answer::observe(entry, refused));
    };
    let first = entry.begin(&attempt);
    let (rules, session) = (Arc::clone(&entry.rules), Arc::clone(&entry.session));
    let request = attempt.request();
    match rules.forwarder.send(&session.upstream, request).await {
        Ok(response) if is_taken(response.status()) => {
            entry.taken(attempt, response.status());
            Ok(answer::observe(entry, response))
        }
        Err(error @ SendError::Broken(_)) => {
            entry.count_again("not_answered");
            entry.failed(&error);
            Err(error)
        }
        sent => {
            if let Err(error) = sent {
                tracing::warn!(%error, id = entry.record.id, "a request could not be sent again");
            }
            entry.give_up(first);
            Ok(answer::observe(entry, refused))
        }
    }
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
        }));
    }

    /// Whether an answer may be the refusal of a history, of a call that may be sent otherwise.
    pub(super) fn may_go_again(&self, status: StatusCode) -> bool {
        status == StatusCode::BAD_REQUEST && self.again.is_some()
    }

    /// The same request in another form, if there is one.
    fn other(&self, kept: Kept) -> Option<Attempt> {
        let Kept {
            mut head,
            trailers,
            came,
            own: mut edits,
        } = kept;
        let encoding = encoding_of(&head.headers)?;
        let plain = match encoding {
            Encoding::Identity => came.clone(),
            Encoding::Gzip | Encoding::Deflate | Encoding::Brotli | Encoding::Zstd => {
                decode::decode(encoding, &came, limits::BODY_BYTES_MAX)
                    .ok()?
                    .into()
            }
        };
        let sent = edit::apply(&plain, &mut self.edits.clone()).ok()?;
        let mut forms = self.forms(&plain, &sent)?;
        let (form, plan) = self.next_form(&mut forms, &plain)?;
        edits.extend_from_slice(&plan.edits);
        let body = if edits.is_empty() {
            Edited {
                body: came,
                plain: plain.clone(),
            }
        } else {
            edited(&plain, &mut edits, encoding).ok()?
        };
        if head.headers.contains_key(CONTENT_LENGTH) {
            let length = HeaderValue::from(body.body.len());
            head.headers.insert(CONTENT_LENGTH, length);
        }
        Some(Attempt {
            form,
            forms,
            head,
            trailers,
            plain,
            body,
            edits,
            planned: plan.edits,
        })
    }

    /// Notes that another form is being sent.
    fn begin(&mut self, attempt: &Attempt) -> First {
        let recorded_first = std::mem::take(&mut self.record.edits);
        let of_head = recorded_first
            .iter()
            .filter(|edit| edit.rule == ACCEPT_ENCODING);
        self.record.edits = recorded(&attempt.edits).chain(of_head.cloned()).collect();
        First {
            edits: std::mem::replace(&mut self.edits, attempt.edits.clone()),
            recorded: recorded_first,
            sent: self.sent.replace(Instant::now()),
        }
    }

    /// Notes that another form was not refused, and remembers that if it was answered.
    fn taken(&mut self, attempt: Attempt, status: StatusCode) {
        self.count_again(attempt.form.as_str());
        if status.is_success() {
            let Attempt {
                form,
                forms,
                plain,
                planned,
                ..
            } = &attempt;
            self.remember_form(forms, plain, *form, planned);
        }
        // What was planned was not sent, so that it has brought nothing.
        self.keep_for_sketch(attempt.plain, attempt.body.plain);
        self.hand_over();
    }

    /// Notes that the first answer is the one that counts.
    fn give_up(&mut self, first: First) {
        self.count_again("in_vain");
        self.edits = first.edits;
        self.record.edits = first.recorded;
        self.sent = first.sent;
    }

    fn count_again(&mut self, result: &'static str) {
        let sent_again = &self.context.metrics.sent_again;
        sent_again.with_label_values(&[result]).inc();
        self.record.reasons.push(format!("sent_again_{result}"));
    }
}

impl Attempt {
    fn request(&self) -> Request<RequestBody> {
        let body = RequestBody::Full {
            bytes: self.body.body.clone(),
            trailers: self.trailers.clone(),
            announced: self.head.headers.contains_key(CONTENT_LENGTH),
        };
        Request::from_parts(self.head.clone(), body)
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

/// Of an error that is read before it is passed on, encoded and decoded. Longer ones are others.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long such an error is waited for.
const ERROR_WAIT_MAX: Duration = Duration::from_secs(10);
