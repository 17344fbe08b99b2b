//! The edits of a request: whether any may be made, which are, and what is sent then.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use weir_core::edit;

use super::decode::{self, Encoding};
use super::entry::Entry;
use crate::ledger::Edit;

/// A body that is sent.
pub(super) struct Edited {
    /// In the encoding that it came in.
    pub(super) body: Bytes,
    /// As it reads: the same bytes, where it has no encoding.
    pub(super) plain: Bytes,
}

/// A body without its Content-Encoding.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) encoding: Encoding,
    pub(super) bytes: Bytes,
}

impl Entry {
    /// Whether the bytes of the request may change at all.
    pub(super) fn may_edit(&self) -> bool {
        !self.rules.config.observe && !self.signed
    }

    /// Whether usage was asked for that the client did not ask for.
    pub(super) fn asked_for_usage(&self) -> bool {
        self.edits
            .iter()
            .any(|made| made.rule == edit::ASK_FOR_USAGE)
    }

    /// The body as it reads, its Content-Encoding undone: where all edits are made.
    pub(super) fn plain(&self, body: &Bytes) -> Bytes {
        let decoded = self.decoded.as_ref();
        decoded.map_or(body, |decoded| &decoded.bytes).clone()
    }

    /// All edits of a plain body: those of the caps, of the prompt, and the question for usage.
    fn edits(&mut self, plain: &Bytes) -> Vec<edit::Edit> {
        // Also where nothing may be changed: what would have been is of interest, but not urgent.
        let mut edits = Vec::new();
        if self.only_watches() {
            self.to_watch = Some(plain.clone());
        } else {
            edits = self.rewrite(plain);
        }
        edits.append(&mut self.edits);
        if let Some(call) = &self.call {
            edits.extend(edit::ask_for_usage(self.session.provider, call, plain));
        }
        edits
    }

    /// The body with every edit made. Without one, the very same bytes.
    pub(super) fn edit(&mut self, body: Bytes) -> Edited {
        let plain = self.plain(&body);
        let decoded = self.decoded.take();
        let mut edits = self.edits(&plain);
        if edits.is_empty() || !self.may_edit() {
            return Edited { body, plain };
        }
        let encoding = decoded.map_or(Encoding::Identity, |decoded| decoded.encoding);
        match edited(&plain, &mut edits, encoding) {
            Ok(edited) => {
                self.record.edits.extend(recorded(&edits));
                self.edits = edits;
                edited
            }
            Err(error) => {
                tracing::error!(%error, "expected edits that fit; the request goes as it came");
                Edited { body, plain }
            }
        }
    }

    /// The head to go with an edited body.
    pub(super) fn edit_head(&mut self, mut head: Parts, body_bytes: usize) -> Parts {
        if !self.edits.is_empty() && head.headers.contains_key(header::CONTENT_LENGTH) {
            head.headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(body_bytes));
        }
        // A chunk can only be taken out of an answer that is not encoded, and only one can be ended.
        let wants_identity = self.asked_for_usage() || self.growth.is_some();
        let identity = HeaderValue::from_static("identity");
        if wants_identity
            && self.may_edit()
            && head
                .headers
                .get(header::ACCEPT_ENCODING)
                .is_some_and(|accepted| *accepted != identity)
        {
            head.headers.insert(header::ACCEPT_ENCODING, identity);
            self.record.edits.push(Edit {
                rule: ACCEPT_ENCODING.to_owned(),
                bytes: 8,
            });
        }
        head
    }
}

/// A plain body with edits made, and the same in an encoding.
///
/// # Errors
/// In words: the edits do not fit, or memory for an encoder.
pub(super) fn edited(
    plain: &[u8],
    edits: &mut [edit::Edit],
    encoding: Encoding,
) -> Result<Edited, String> {
    let plain = edit::apply(plain, edits).map_err(|error| error.to_string())?;
    let plain = Bytes::from(plain);
    let body = if encoding == Encoding::Identity {
        plain.clone()
    } else {
        let encoded = decode::encode(encoding, &plain);
        encoded.map_err(|error| error.to_string())?.into()
    };
    Ok(Edited { body, plain })
}

/// Edits as the record has them.
pub(super) fn recorded(edits: &[edit::Edit]) -> impl Iterator<Item = Edit> {
    edits.iter().map(|edit| Edit {
        rule: edit.rule.to_string(),
        bytes: u64::try_from(edit.replacement.len().max(edit.range.len())).unwrap_or(u64::MAX),
    })
}

/// Whether the client vouches for the bytes of its request, so that a changed one would be refused:
/// Signature Version 4 of Amazon, in a header or in the query, message signatures (RFC 9421), and
/// digests of the body (RFC 9530, RFC 1864; `x-amz-content-sha256`).
pub(super) fn is_signed(headers: &HeaderMap, query: Option<&str>) -> bool {
    let by_header = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .any(|value| value.as_bytes().trim_ascii_start().starts_with(b"AWS4-"));
    let by_query = query.unwrap_or_default().split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name.eq_ignore_ascii_case("x-amz-signature")
    });
    let by_digest = SIGNED.iter().any(|name| headers.contains_key(name));
    by_header || by_query || by_digest
}

/// Fields that hold a signature or a digest of the body.
static SIGNED: [HeaderName; 6] = [
    HeaderName::from_static("signature"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("x-amz-content-sha256"),
];

/// The rule by which an answer is asked for without an encoding, in the record of an exchange.
pub(super) const ACCEPT_ENCODING: &str = "accept-encoding";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_wherever_the_signature_stands() {
        let signed = |name: &'static str, value: &'static str, query| {
            let mut headers = HeaderMap::new();
            headers.append("authorization", HeaderValue::from_static("Bearer key"));
            headers.append(name, HeaderValue::from_static(value));
            is_signed(&headers, query)
        };
        let v4 = "AWS4-HMAC-SHA256 Credential=A/20261125/us-east-1/bedrock/aws4_request";
        assert!(signed("authorization", v4, None));
        assert!(signed(
            "authorization",
            "AWS4-ECDSA-P256-SHA256 Credential=A",
            None
        ));
        assert!(signed("content-digest", "sha-256=:x:", None));
        assert!(signed("x", "y", Some("a=b&X-Amz-Signature=abc")));
        assert!(!signed("x", "y", Some("a=X-Amz-Signature")));
        assert!(!signed("x-amz-date", "20261125T000000Z", None));
    }
}
