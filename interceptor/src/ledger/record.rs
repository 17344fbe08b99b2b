//! What is written down: one `Record` per exchange, and counts of what was not inspected.
//!
//! Plain data. Field names are a stored format: a journal written by an older version must still
//! be read, so fields are only added, with a default, and texts are never renamed.

use serde::{Deserialize, Serialize};
use weir_core::identity::Caller;
use weir_core::lease::Charge;
use weir_core::money::Money;
use weir_core::usage::Usage;

/// One exchange: who asked whom for what, what came of it, and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// UUID version 7, unique per exchange; writing the same id twice writes one record.
    pub id: String,
    /// When the request's head was read, in milliseconds since the Unix epoch.
    pub started_unix_ms: i64,
    /// Who asked, as the kernel and the request's credentials tell.
    pub identity: Identity,
    /// Original destination, `address:port`, before the redirect.
    pub destination: String,
    /// Host of the destination, lower case, as in the server name.
    pub host: String,
    /// Provider from the catalogue, such as `anthropic`; empty where unknown.
    pub provider: String,
    /// API, such as `messages`; empty where unknown.
    pub api: String,
    /// HTTP method.
    pub method: String,
    /// Path with its variable parts replaced, so that it has few values.
    pub path_class: String,
    /// Conversation or session that the client named.
    pub session: Option<String>,
    /// Model that was asked for.
    pub model_requested: Option<String>,
    /// Model that the provider says answered.
    pub model_answered: Option<String>,
    /// HTTP status that the application saw; none where it saw no answer.
    pub status: Option<u16>,
    /// How the exchange ended.
    pub outcome: Outcome,
    /// Whether the answer was asked for as a stream.
    pub stream: bool,
    /// Tokens used; none where no usage was read.
    pub usage: Option<Usage>,
    /// What it cost.
    pub cost: Cost,
    /// What it costs by list, where something else is charged: a price that was negotiated, or what the
    /// provider says.
    pub cost_by_list: Option<Money>,
    /// The part of the cost that is for the prompt, read from the cache or not.
    pub cost_of_input: Option<Money>,
    /// Tokens, of prompt and answer, as caps count them: those used; estimated, as the cost is,
    /// where they were not told; none of a call that is not billed.
    pub counted_tokens: u64,
    /// What the same tokens would have cost with no prompt cache.
    pub cost_without_cache: Option<Money>,
    /// What the same tokens would have cost had everything repeated been read from the cache.
    pub cost_perfect_cache: Option<Money>,
    /// What the prompt cache did, as a stable word such as `hit`.
    pub cache_outcome: Option<String>,
    /// Why not all of it was read that could have been, as a stable word such as `tools_changed`.
    pub cache_reason: Option<String>,
    /// Where the prompt first differs from the one before it: a part, its index and a byte, such
    /// as `system[0]+214`. Never what stands there.
    pub cache_where: Option<String>,
    /// The rule or the learned span that covers that place.
    pub cache_rule: Option<String>,
    /// What `cache_reason` cost.
    pub missed: Option<Money>,
    /// What rewriting saved of that or, where it is not switched on, would have saved.
    pub rewrite_saving: Option<Money>,
    /// What Weir changed in the request.
    pub edits: Vec<Edit>,
    /// Why things are as they are, as stable words: why unread, why not edited, why estimated.
    pub reasons: Vec<String>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body, as sent by the provider.
    pub response_bytes: u64,
    /// How long it took.
    pub timings: Timings,
    /// What it takes out of which accounts of caps, where nodes share them: reserved, or spent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// The Weir process that wrote this; filled in by the ledger.
    pub instance: String,
}

impl Record {
    /// Takes what is found out about its cache over what is known of it so far.
    pub fn explain(&mut self, explained: Explained) {
        let Explained {
            cache_outcome,
            cost_perfect_cache,
            cache_reason,
            cache_where,
            cache_rule,
            missed,
            rewrite_saving,
        } = explained;
        self.cache_outcome = cache_outcome;
        self.cost_perfect_cache = cost_perfect_cache;
        self.cache_reason = cache_reason;
        self.cache_where = cache_where;
        self.cache_rule = cache_rule;
        self.missed = missed;
        self.rewrite_saving = rewrite_saving;
    }

    /// Who asked, as caps are kept by.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            session: self.session.clone(),
            ..self.identity.caller()
        }
    }
}

/// What is found out about the prompt cache of a call, perhaps only after its record was written. The
/// fields are those of [`Record`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explained {
    /// What the prompt cache did.
    pub cache_outcome: Option<String>,
    /// What a perfect cache would have let the call cost.
    pub cost_perfect_cache: Option<Money>,
    /// Why not all of it was read that could have been.
    pub cache_reason: Option<String>,
    /// Where the prompt first differs from the one before it.
    pub cache_where: Option<String>,
    /// What is known to change there.
    pub cache_rule: Option<String>,
    /// What `cache_reason` cost.
    pub missed: Option<Money>,
    /// What rewriting saved of that, or would have.
    pub rewrite_saving: Option<Money>,
}

/// Who asked. What is unknown is `None`; nothing here was chosen by the client except the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Process id, in Weir's pid namespace.
    pub pid: Option<u32>,
    /// Name of the executable, without its directory.
    pub program: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// User name, where the id has one.
    pub user: Option<String>,
    /// Cgroup, as a path below the hierarchy's root, or its id.
    pub cgroup: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes namespace of the pod.
    pub namespace: Option<String>,
    /// Kubernetes service account of the pod.
    pub service_account: Option<String>,
    /// Team, as configured.
    pub team: Option<String>,
    /// Keyed hash of the credential, in hexadecimal. The credential is never stored.
    pub key_hash: Option<String>,
    /// The last four characters of the credential, to recognise it by.
    pub key_tail: Option<String>,
    /// Kind of the credential: `api_key`, `subscription`, `cloud_iam`, or `oauth` for another login.
    pub key_kind: Option<String>,
}

impl Identity {
    /// As caps are kept by. A user without a name is its number.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            key: self.key_hash.clone(),
            user: self
                .user
                .clone()
                .or_else(|| self.uid.map(|uid| uid.to_string())),
            process: self.program.clone(),
            cgroup: self.cgroup.clone(),
            container: self.container.clone(),
            pod: self.pod.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            team: self.team.clone(),
            session: None,
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer was passed on, and it was not an error.
    Completed,
    /// A cap refused the call: nothing was sent to the provider.
    Refused {
        /// Name of the cap.
        cap: String,
    },
    /// A cap ended the answer, which had begun: nothing was left under it.
    CutOff {
        /// Name of the cap.
        cap: String,
    },
    /// Refused for another reason than a cap; `Record::reasons` says which.
    Denied,
    /// The application went away before the answer's end.
    ClientGone,
    /// The provider was not reached, or went away before the answer's head.
    UpstreamFailed,
    /// The provider's answer ended before its end.
    Truncated,
    /// The provider answered with an error.
    ProviderError,
    /// Forwarded without being read; `Record::reasons` says why.
    Unread,
    /// Weir died before the answer's end: what was reserved counts as spent.
    #[default]
    Lost,
}

impl Outcome {
    /// The stable text of the ledger and of metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused { .. } => "refused",
            Self::CutOff { .. } => "cut_off",
            Self::Denied => "denied",
            Self::ClientGone => "client_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::Truncated => "truncated",
            Self::ProviderError => "provider_error",
            Self::Unread => "unread",
            Self::Lost => "lost",
        }
    }

    /// Name of the cap that refused, or ended the answer.
    #[must_use]
    pub fn cap(&self) -> Option<&str> {
        match self {
            Self::Refused { cap } | Self::CutOff { cap } => Some(cap),
            Self::Completed
            | Self::Denied
            | Self::ClientGone
            | Self::UpstreamFailed
            | Self::Truncated
            | Self::ProviderError
            | Self::Unread
            | Self::Lost => None,
        }
    }
}

/// What an exchange cost, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// By the usage that the provider told and a price table; nothing, where nothing is billed.
    Priced {
        /// The cost.
        total: Money,
        /// Version of the price table.
        version: String,
    },
    /// Not told by the provider: what was reserved, or what was streamed until it broke off.
    Estimated {
        /// The estimate, which counts as spent.
        total: Money,
        /// Version of the price table; empty where the reservation is the estimate.
        version: String,
    },
    /// Told by the provider: what it charged, whatever a price table says.
    Reported {
        /// The charge.
        total: Money,
    },
    /// What the call would have cost by a price table, where a plan pays for it: nothing is
    /// billed, so it counts as nothing.
    Notional {
        /// The cost.
        total: Money,
        /// Version of the price table.
        version: String,
    },
    /// There is usage, and no price for the model.
    Unpriced,
    /// There is no usage to price.
    #[default]
    Unknown,
}

impl Cost {
    /// What counts as spent against caps.
    #[must_use]
    pub const fn spent(&self) -> Money {
        match self {
            Self::Priced { total, .. }
            | Self::Estimated { total, .. }
            | Self::Reported { total } => *total,
            Self::Notional { .. } | Self::Unpriced | Self::Unknown => Money::ZERO,
        }
    }

    /// What would have been spent, were there no plan that paid for the call.
    #[must_use]
    pub const fn notional(&self) -> Option<Money> {
        match self {
            Self::Notional { total, .. } => Some(*total),
            _ => None,
        }
    }

    /// The stable text of the ledger.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Priced { .. } => "priced",
            Self::Estimated { .. } => "estimated",
            Self::Reported { .. } => "reported",
            Self::Notional { .. } => "notional",
            Self::Unpriced => "unpriced",
            Self::Unknown => "unknown",
        }
    }
}

/// One change that Weir made to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Edit {
    /// Name of the rule.
    pub rule: String,
    /// Bytes replaced, removed or inserted, whichever is more.
    pub bytes: u64,
}

/// Durations of one exchange, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Added by Weir before the request was sent on.
    pub added_us: u64,
    /// From the request sent on to the answer's first byte.
    pub upstream_first_byte_us: Option<u64>,
    /// From the request's head to the answer's last byte.
    pub total_us: u64,
}

/// Connections or calls that were not inspected, counted per minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Bypass {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Name of the executable.
    pub program: String,
    /// Server name; empty where none was read.
    pub host: String,
    /// Original destination, `address:port`.
    pub destination: String,
    /// Why it was not inspected, as a stable word such as `not_an_llm_host`.
    pub reason: String,
    /// How many.
    pub count: u64,
}
