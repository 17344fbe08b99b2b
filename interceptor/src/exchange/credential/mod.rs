//! Recognises the credential of a request without keeping it: a keyed hash and its last letters.
//!
//! The hash is of what stays the same: an API key as it is; of a token that is refreshed every
//! hour whom it is for (the subject of a JWT, the tenant of a Copilot token, the project that a
//! Google token is used in). Claims of a token are believed without checking its signature: the
//! provider checks it, and a call with a forged one is not billed. What has nothing that stays
//! (Anthropic's OAuth tokens) gets a new hash with each refresh: limit such callers by user.

#[cfg(test)]
mod tests;
mod token;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use weir_core::catalog::Provider;

use super::secret::Secret;
use crate::process::state;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// How a browser, which can set no header on a WebSocket, sends a key to `OpenAI`.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
const SECRET_FILE: &str = "key-hash.secret";
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
    pub(crate) kind: Kind,
}

/// What stands behind a credential, as far as the bill goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key that is billed by use.
    ApiKey,
    /// A login whose use is paid by a plan: nothing is billed for a call.
    Subscription,
    /// An identity of a cloud: signed requests, tokens of its login.
    CloudIam,
    /// Another login, which is taken to be billed.
    OAuth,
}

impl Kind {
    /// As in records.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Subscription => "subscription",
            Self::CloudIam => "cloud_iam",
            Self::OAuth => "oauth",
        }
    }
}

/// A request, as far as it tells who pays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) provider: Provider,
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
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
        let secret = state::secret(&state_dir.join(SECRET_FILE), "keys get new hashes")?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    /// Hashes under the secret that nodes share, so that a key has one hash at all of them.
    pub(crate) fn shared(secret: &Secret) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        let derived = hmac::sign(&secret, b"key-hash");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
        }
    }

    /// The credential that a request carries, if any. `latest` is that of its connection.
    pub(crate) fn recognize(&self, sender: &Sender<'_>, latest: &Latest) -> Option<Credential> {
        let Found {
            identity,
            shown,
            kind,
        } = sender.find()?;
        let mut latest = latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = match &*latest {
            Some((same, hash)) if *same == *identity => hash.clone(),
            _ => {
                let hash = self.hash(&identity);
                *latest = Some((identity.into_owned(), hash.clone()));
                hash
            }
        };
        drop(latest);
        let shown = shown.filter(|shown| shown.len() >= TAIL_FROM_LENGTH);
        let tail = shown.and_then(|shown| shown.get(shown.len().saturating_sub(4)..));
        Some(Credential {
            hash,
            tail: tail.map(str::to_owned),
            kind,
        })
    }

    /// Hexadecimal.
    fn hash(&self, identity: &str) -> String {
        let tag = hmac::sign(&self.key, identity.as_bytes());
        let mut hash = String::with_capacity(2 * HASH_BYTES);
        for byte in tag.as_ref().iter().take(HASH_BYTES) {
            // Writing to a string can't fail.
            let _infallible = write!(hash, "{byte:02x}");
        }
        hash
    }
}

/// Whose the last request of a connection was, and its hash: mostly the next one is the same caller's,
/// and hashing is dearer than all else about a credential. Never printed.
#[derive(Default)]
pub(crate) struct Latest(Mutex<Option<(String, String)>>);

/// A credential as it was found.
struct Found<'a> {
    /// What its hash is made of.
    identity: Cow<'a, str>,
    /// What its last letters are shown of.
    shown: Option<&'a str>,
    kind: Kind,
}

impl<'a> Found<'a> {
    const fn key(secret: &'a str) -> Self {
        Self {
            identity: Cow::Borrowed(secret),
            shown: Some(secret),
            kind: Kind::ApiKey,
        }
    }
}

impl<'a> Sender<'a> {
    /// The header that the provider itself goes by comes first, so that another one beside it does
    /// not give a caller a new key's allowance.
    fn find(&self) -> Option<Found<'a>> {
        let own = match self.provider {
            Provider::Anthropic => Some(&X_API_KEY),
            Provider::Azure => Some(&API_KEY),
            Provider::Google | Provider::Vertex => Some(&X_GOOG_API_KEY),
            _ => None,
        };
        let api_key = |name: &HeaderName| {
            let key = self.text(name)?;
            (!key.is_empty()).then_some(Found::key(key))
        };
        let mut found = own
            .and_then(api_key)
            .or_else(|| self.query_key())
            .or_else(|| self.authorization())
            .or_else(|| {
                [&X_API_KEY, &API_KEY, &X_GOOG_API_KEY]
                    .into_iter()
                    .find_map(api_key)
            })
            .or_else(|| self.signed_query())
            .or_else(|| self.web_socket_key())?;
        if found.kind != Kind::CloudIam && self.is_plan() {
            found.kind = Kind::Subscription;
        }
        Some(found)
    }

    /// Hosts and paths that only those with a plan may use, whatever credential they show.
    fn is_plan(&self) -> bool {
        self.provider == Provider::Copilot
            || PLAN_HOSTS.contains(&self.host)
            || (self.provider == Provider::Zhipu && self.path.starts_with(ZHIPU_PLAN_PATH))
    }

    fn authorization(&self) -> Option<Found<'a>> {
        let authorization = self.text(&AUTHORIZATION)?;
        let (scheme, rest) = authorization.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
            return Some(self.bearer(rest));
        }
        if scheme.starts_with("AWS4-") {
            let (_, credential) = rest.split_once("Credential=")?;
            return signed(credential.split('/').next()?);
        }
        None
    }

    fn bearer(&self, secret: &'a str) -> Found<'a> {
        if self.is_login_of_claude(secret) {
            return Found {
                kind: Kind::Subscription,
                ..Found::key(secret)
            };
        }
        let of_whom = |identity: String, kind| Found {
            identity: Cow::Owned(identity),
            shown: None,
            kind,
        };
        let cloud = matches!(
            self.provider,
            Provider::Google | Provider::Vertex | Provider::Azure | Provider::Bedrock
        );
        if let Some(subject) = token::subject(secret) {
            let kind = if cloud { Kind::CloudIam } else { Kind::OAuth };
            return of_whom(subject, kind);
        }
        if secret.starts_with(GOOGLE_TOKEN) {
            let project = self
                .path
                .split('/')
                .skip_while(|part| *part != "projects")
                .nth(1);
            return match project {
                Some(project) => of_whom(format!("google project {project}"), Kind::CloudIam),
                None => of_whom(secret.to_owned(), Kind::CloudIam),
            };
        }
        if self.provider == Provider::Copilot
            && let Some(tenant) = token::copilot_tenant(secret)
        {
            return of_whom(tenant, Kind::Subscription);
        }
        Found::key(secret)
    }

    /// Whether a bearer token is of a Claude plan: by its prefix, or by the beta that such calls
    /// announce. An API key is none, whatever it announces: a plan is under no cap of money.
    fn is_login_of_claude(&self, token: &str) -> bool {
        if self.provider != Provider::Anthropic || token.starts_with("sk-ant-api") {
            return false;
        }
        let betas = self.headers.get_all(&ANTHROPIC_BETA).into_iter();
        let mut betas = betas.filter_map(|betas| betas.to_str().ok());
        let announced = betas.any(|betas| {
            let mut betas = betas.split(',').map(str::trim);
            betas.any(|beta| beta.starts_with("oauth-"))
        });
        token.starts_with("sk-ant-oat")
            || (announced && !token.starts_with("sk-ant-") && token::subject(token).is_none())
    }

    /// `?key=` of Google.
    fn query_key(&self) -> Option<Found<'a>> {
        let is_google = matches!(self.provider, Provider::Google | Provider::Vertex);
        let key = self
            .query("key")
            .filter(|key| is_google && !key.is_empty())?;
        Some(Found::key(key))
    }

    /// A presigned request of AWS.
    fn signed_query(&self) -> Option<Found<'a>> {
        let credential = self.query("X-Amz-Credential")?;
        // The slashes of the scope may be escaped.
        let end = credential.find(['/', '%']).unwrap_or(credential.len());
        signed(credential.get(..end)?)
    }

    fn web_socket_key(&self) -> Option<Found<'a>> {
        let protocols = self.headers.get_all(&SEC_WEBSOCKET_PROTOCOL).into_iter();
        let protocols = protocols.filter_map(|protocols| protocols.to_str().ok());
        let mut protocols = protocols.flat_map(|protocols| protocols.split(','));
        protocols
            .find_map(|protocol| protocol.trim().strip_prefix(KEY_PROTOCOL))
            .map(Found::key)
    }

    fn query(&self, name: &str) -> Option<&'a str> {
        let (_, query) = self.path.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    fn text(&self, name: &HeaderName) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The id of an access key of AWS, which is no secret.
fn signed(access_key_id: &str) -> Option<Found<'_>> {
    (!access_key_id.is_empty()).then_some(Found {
        kind: Kind::CloudIam,
        ..Found::key(access_key_id)
    })
}

/// Hosts that serve plans alone: Codex with a `ChatGPT` login, and Kimi's coding plan.
const PLAN_HOSTS: [&str; 2] = ["chatgpt.com", "api.kimi.com"];
/// The coding plan of Zhipu.
const ZHIPU_PLAN_PATH: &str = "/api/coding/";
/// How Google's access tokens begin.
const GOOGLE_TOKEN: &str = "ya29.";
