//! Recognises the credential of a request without keeping it: a keyed hash and its last letters.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::{hmac, rand};
use http::HeaderMap;
use http::header::AUTHORIZATION;

const SECRET_FILE: &str = "key-hash.secret";
const SECRET_BYTES: usize = 32;
/// Of the 32 bytes of HMAC-SHA-256; enough that no two keys of an organisation meet.
const HASH_BYTES: usize = 16;
/// A shorter credential is not shown at all: four letters would be too much of it.
const TAIL_FROM_LENGTH: usize = 16;

/// What is known of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Hexadecimal.
    pub(crate) hash: String,
    pub(crate) tail: Option<String>,
    pub(crate) kind: &'static str,
}

/// Hashes credentials with a secret of this installation, so that hashes in a ledger can't be
/// tested against a list of keys by whoever has only the ledger.
#[derive(Debug)]
pub(crate) struct Keyring {
    key: hmac::Key,
}

impl Keyring {
    /// Reads the secret in `state_dir`, or makes it.
    ///
    /// # Errors
    /// The file can't be read or made.
    pub(crate) fn open_or_create(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SECRET_FILE);
        let mut secret = [0; SECRET_BYTES];
        rand::fill(&mut secret).map_err(io::Error::other)?;
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            Ok(mut file) => file.write_all(&secret)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let secret = fs::read(&path)?;
        if secret.len() != SECRET_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expected {SECRET_BYTES} bytes in {}, found {}: remove the file, and keys \
                     get new hashes",
                    path.display(),
                    secret.len()
                ),
            ));
        }
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    /// The credential that a request carries, if any.
    pub(crate) fn recognize(&self, headers: &HeaderMap) -> Option<Credential> {
        let (secret, kind) = find(headers)?;
        let tag = hmac::sign(&self.key, secret.as_bytes());
        let mut hash = String::with_capacity(2 * HASH_BYTES);
        for byte in tag.as_ref().iter().take(HASH_BYTES) {
            // Writing to a string can't fail.
            let _infallible = write!(hash, "{byte:02x}");
        }
        let tail = (secret.len() >= TAIL_FROM_LENGTH && kind != "aws_sigv4")
            .then(|| {
                secret
                    .get(secret.len().saturating_sub(4)..)
                    .map(str::to_owned)
            })
            .flatten();
        Some(Credential { hash, tail, kind })
    }
}

/// The secret part, and what kind of credential it is.
fn find(headers: &HeaderMap) -> Option<(&str, &'static str)> {
    for name in ["x-api-key", "api-key", "x-goog-api-key"] {
        if let Some(key) = headers.get(name).and_then(|value| value.to_str().ok()) {
            return Some((key, "api_key"));
        }
    }
    let authorization = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((rest, if is_oauth(rest) { "oauth" } else { "api_key" }));
    }
    if scheme.starts_with("AWS4-") {
        let (_, credential) = rest.split_once("Credential=")?;
        return Some((credential.split('/').next()?, "aws_sigv4"));
    }
    None
}

/// Anthropic's OAuth access tokens have a prefix of their own; others are JWTs (RFC 7519).
fn is_oauth(token: &str) -> bool {
    token.starts_with("sk-ant-oat") || (token.starts_with("eyJ") && token.matches('.').count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognize(keyring: &Keyring, name: &'static str, value: &str) -> Option<Credential> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        keyring.recognize(&headers)
    }

    fn keyring(name: &str) -> Keyring {
        let dir = std::env::temp_dir().join(format!("weir-keyring-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let keyring = Keyring::open_or_create(&dir).unwrap();
        let again = Keyring::open_or_create(&dir).unwrap();
        assert_eq!(
            recognize(&keyring, "x-api-key", "a-key-of-some-length"),
            recognize(&again, "x-api-key", "a-key-of-some-length"),
            "the secret is kept"
        );
        fs::remove_dir_all(&dir).unwrap();
        keyring
    }

    #[test]
    fn one_key_has_one_hash_however_it_is_sent() {
        let keyring = keyring("one");
        let header = recognize(&keyring, "x-api-key", "test-key-0123456789abcd").unwrap();
        let bearer = recognize(&keyring, "authorization", "Bearer test-key-0123456789abcd");
        assert_eq!(Some(&header), bearer.as_ref());
        assert_eq!(header.tail.as_deref(), Some("abcd"));
        assert_eq!(header.hash.len(), 2 * HASH_BYTES);
    }

    #[test]
    fn kinds_are_told_apart() {
        let keyring = keyring("kinds");
        let kind = |value| recognize(&keyring, "authorization", value).map(|found| found.kind);
        assert_eq!(kind("Bearer sk-ant-oat01-abcdefghijkl"), Some("oauth"));
        assert_eq!(
            kind("Bearer eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl"),
            Some("oauth")
        );
        let signed =
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/bedrock/aws4_request";
        assert_eq!(kind(signed), Some("aws_sigv4"));
        assert_eq!(kind("Basic dXNlcjpwYXNz"), None);
        assert_eq!(recognize(&keyring, "api-key", "short").unwrap().tail, None);
    }

    #[test]
    fn another_installation_hashes_differently() {
        let (one, other) = (keyring("a"), keyring("b"));
        let hash = |keyring| {
            recognize(keyring, "x-api-key", "test-key-0123456789")
                .unwrap()
                .hash
        };
        assert_ne!(hash(&one), hash(&other));
    }
}
