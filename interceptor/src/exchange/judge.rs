//! Reads a call, and reserves what it may cost or refuses it.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, header};
use weir_core::api::Api;
use weir_core::call;
use weir_core::caps::Exceeded;
use weir_core::refusal::{self, Reason, Rendered};

use super::admission;
use super::decode::{self, Encoding};
use super::edit::Decoded;
use super::entry::{End, Entry};
use super::response::{self, Response};
use crate::ledger::Outcome;
use crate::metrics::Bound;
use crate::process::limits;

impl Entry {
    /// Reads the body of a call.
    ///
    /// # Errors
    /// In words, what can't be read of it.
    pub(super) fn read_call(
        &mut self,
        api: Api,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<(), String> {
        self.read = Some(Instant::now());
        self.record.request_bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let content_encoding = headers.get(header::CONTENT_ENCODING);
        let content_encoding = content_encoding.map(|value| value.to_str().unwrap_or("?"));
        let mut parsed = match Encoding::of(content_encoding) {
            Some(Encoding::Identity) => {
                let call = call::parse(api, body).map_err(|error| error.to_string())?;
                self.conversation =
                    admission::conversation(self.record.identity.key_hash.as_deref(), &call, body);
                call
            }
            Some(encoding) => self.read_encoded(api, encoding, body)?,
            None => {
                return Err(format!(
                    "expected a known encoding, found {content_encoding:?}"
                ));
            }
        };
        parsed.complete(std::mem::take(&mut self.said));
        self.note(parsed);
        Ok(())
    }

    /// Takes a call that was read from `message`, which is not encoded.
    pub(super) fn take_call(&mut self, call: call::Call, message: &[u8]) {
        self.conversation =
            admission::conversation(self.record.identity.key_hash.as_deref(), &call, message);
        self.note(call);
    }

    fn note(&mut self, call: call::Call) {
        self.record.stream = call.stream;
        self.note_session(&call);
        self.record.model_requested.clone_from(&call.model);
        self.terms = self.terms_of(&call);
        self.call = Some(call);
    }

    fn read_encoded(
        &mut self,
        api: Api,
        encoding: Encoding,
        body: &Bytes,
    ) -> Result<call::Call, String> {
        let decoded = decode::decode(encoding, body, limits::BODY_BYTES_MAX).map_err(|error| {
            if error.kind() == std::io::ErrorKind::FileTooLarge {
                self.context.metrics.bound_reached(Bound::DecodedBody);
            }
            format!("expected a body encoded as {encoding:?}: {error}")
        })?;
        let call = call::parse(api, &decoded).map_err(|error| error.to_string())?;
        self.conversation =
            admission::conversation(self.record.identity.key_hash.as_deref(), &call, &decoded);
        self.record.reasons.push("request_encoded".to_owned());
        // Ranges of the call are those of the decoded body.
        self.decoded = Some(Decoded {
            encoding,
            bytes: Bytes::from(decoded),
        });
        Ok(call)
    }

    /// Answers in the provider's place that a cap is spent.
    pub(super) fn refuse(self: Box<Self>, api: Api, exceeded: &Exceeded) -> Response {
        response::refusal(self.refused(api, exceeded))
    }

    /// Refuses a call because a cap is spent; what its application is to be told.
    pub(super) fn refused(mut self: Box<Self>, api: Api, exceeded: &Exceeded) -> Rendered {
        tracing::info!(
            cap = exceeded.cap, scope = exceeded.scope, limit = %exceeded.limit,
            spent = %exceeded.spent, "refused a call"
        );
        self.record.outcome = Outcome::Refused {
            cap: exceeded.cap.clone(),
        };
        self.end_with(api, &Reason::CapExceeded(exceeded))
    }

    /// Answers that a body is longer than what is read.
    pub(super) fn refuse_too_long(self: Box<Self>, api: Api) -> Response {
        let limit_bytes = u64::try_from(limits::BODY_BYTES_MAX).unwrap_or(u64::MAX);
        response::refusal(self.denied(api, &Reason::TooLarge { limit_bytes }))
    }

    /// Answers that a body can't be read.
    pub(super) fn refuse_unreadable(self: Box<Self>, api: Api, detail: &str) -> Response {
        response::refusal(self.denied(api, &Reason::Unreadable { detail }))
    }

    /// Refuses a call for another reason than a cap; what its application is to be told.
    pub(super) fn denied(mut self: Box<Self>, api: Api, reason: &Reason<'_>) -> Rendered {
        tracing::warn!(
            reason = reason.as_str(),
            id = self.record.id,
            "refused a call"
        );
        self.record.outcome = Outcome::Denied;
        self.end_with(api, reason)
    }

    fn end_with(&mut self, api: Api, reason: &Reason<'_>) -> Rendered {
        self.context
            .metrics
            .refused
            .with_label_values(&[reason.as_str()])
            .inc();
        self.record.reasons.push(reason.as_str().to_owned());
        let rendered = refusal::render(api, reason, &self.record.id);
        self.record.status = Some(rendered.status);
        self.finish(None, End::NotSent);
        rendered
    }
}
