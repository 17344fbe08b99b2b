//! Signatures of Amazon's requests, version 4: made anew over the request as it arrived, so that nothing that was signed
//! can have been edited on the way. (Clocks are not compared.)

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use http::header::HOST;
use http::request::Parts;

use crate::exchange::Refusal;

/// Who may sign, and with what: the pair of Amazon's own examples.
pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";

/// The secret of [`ACCESS_KEY_ID`].
pub const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// What an `authorization` header says.
struct Claim<'a> {
    key_id: &'a str,
    /// Day, region, service, and `aws4_request`.
    scope: [&'a str; 4],
    headers: Vec<&'a str>,
    signature: &'a str,
}

/// The access key id that signed the request for `service`.
///
/// # Errors
/// As the service refuses a request that is not signed, not signed by that key, or not signed as it arrived.
pub(super) fn verify(parts: &Parts, body: &[u8], service: &str) -> Result<String, Refusal> {
    let header = parts.headers.get("authorization");
    let claim = header
        .and_then(|header| header.to_str().ok())
        .and_then(Claim::read)
        .ok_or_else(|| {
            refusal(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            )
        })?;
    if claim.key_id != ACCESS_KEY_ID {
        return Err(refusal(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ));
    }
    let [day, _, signed_for, _] = claim.scope;
    if signed_for != service {
        return Err(invalid(&format!(
            "Credential should be scoped to correct service: '{service}'."
        )));
    }
    if ["host", "x-amz-date"]
        .iter()
        .any(|name| !claim.headers.contains(name))
    {
        return Err(invalid("'Host' and 'X-Amz-Date' must be signed."));
    }
    let time = parts.headers.get("x-amz-date");
    let time = time.and_then(|time| time.to_str().ok()).unwrap_or_default();
    if !time.starts_with(day) {
        return Err(invalid(
            "Date in Credential scope does not match X-Amz-Date.",
        ));
    }
    if signature(parts, body, &claim, time).as_deref() != Some(claim.signature) {
        return Err(invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(claim.key_id.to_owned())
}

impl<'a> Claim<'a> {
    fn read(header: &'a str) -> Option<Self> {
        let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let mut credential = field("Credential")?.split('/');
        let key_id = credential.next()?;
        let scope: Vec<&str> = credential.collect();
        Some(Self {
            key_id,
            scope: scope.try_into().ok()?,
            headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }
}

/// The signature that the request should have, in hexadecimal digits; `None` if a signed header is missing.
fn signature(parts: &Parts, body: &[u8], claim: &Claim<'_>, time: &str) -> Option<String> {
    let mut headers = String::new();
    for name in &claim.headers {
        headers += &format!("{name}:{}\n", header(parts, name)?);
    }
    let canonical = [
        parts.method.as_str(),
        &escaped(parts.uri.path()),
        &query(parts.uri.query().unwrap_or_default()),
        &headers,
        &claim.headers.join(";"),
        &hex(digest(&SHA256, body).as_ref()),
    ]
    .join("\n");
    let to_sign = [
        "AWS4-HMAC-SHA256",
        time,
        &claim.scope.join("/"),
        &hex(digest(&SHA256, canonical.as_bytes()).as_ref()),
    ]
    .join("\n");
    let secret = format!("AWS4{SECRET_ACCESS_KEY}").into_bytes();
    let key = claim
        .scope
        .iter()
        .fold(secret, |key, part| keyed(&key, part.as_bytes()));
    Some(hex(&keyed(&key, to_sign.as_bytes())))
}

/// The values of a header, blanks at their ends left out and runs of blanks inside made one.
fn header(parts: &Parts, name: &str) -> Option<String> {
    let mut values = Vec::new();
    for value in parts.headers.get_all(name) {
        let words: Vec<&str> = value.to_str().ok()?.split_ascii_whitespace().collect();
        values.push(words.join(" "));
    }
    if values.is_empty() && name == HOST.as_str() {
        // HTTP/2 has it in the request line.
        values.push(parts.uri.authority()?.to_string());
    }
    (!values.is_empty()).then(|| values.join(","))
}

/// The path once more escaped: what signs escapes the path that it sends, escapes and all.
fn escaped(path: &str) -> String {
    let mut escaped = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

/// The parameters in the order of their names.
fn query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<String> = pairs
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn keyed(key: &[u8], data: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), data).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn invalid(message: &str) -> Refusal {
    refusal("InvalidSignatureException", message)
}

fn refusal(kind: &'static str, message: &str) -> Refusal {
    Refusal::new(403, kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in Amazon's description of the algorithm.
    fn example() -> http::request::Builder {
        http::Request::get("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08")
            .header(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            )
            .header("x-amz-date", "20150830T123600Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, \
                 Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            )
    }

    fn verified(request: http::request::Builder, body: &[u8]) -> Result<String, &'static str> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        verify(&parts, body, "iam").map_err(|refusal| refusal.kind)
    }

    #[test]
    fn the_signature_of_the_published_example_is_good() {
        let (parts, ()) = example().body(()).unwrap().into_parts();
        let found = verify(&parts, b"", "bedrock").unwrap_err();
        assert!(found.message.contains("correct service"), "{found:?}");
        assert_eq!(verified(example(), b""), Ok("AKIDEXAMPLE".to_owned()));
    }

    #[test]
    fn whatever_was_signed_cannot_be_edited() {
        let invalid = Err("InvalidSignatureException");
        assert_eq!(verified(example(), b" "), invalid);
        assert_eq!(verified(example().method("POST"), b""), invalid);
        assert_eq!(
            verified(example().header("content-type", "x"), b""),
            invalid
        );
        let elsewhere = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-09";
        assert_eq!(verified(example().uri(elsewhere), b""), invalid);
        let elsewhere = "https://iam.amazonaws.cn/?Action=ListUsers&Version=2010-05-08";
        assert_eq!(verified(example().uri(elsewhere), b""), invalid);
        let unsigned = http::Request::get("https://iam.amazonaws.com/");
        assert_eq!(
            verified(unsigned, b""),
            Err("MissingAuthenticationTokenException")
        );
        // A header that was not signed may come and go.
        assert_eq!(
            verified(example().header("via", "x"), b""),
            Ok("AKIDEXAMPLE".to_owned())
        );
    }
}
