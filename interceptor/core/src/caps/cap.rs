//! A cap: what it is kept by, what it limits, and what happens beyond.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::accounts::{self, UNKNOWN};
use super::amount::{Amount, Amounts, Limits};
use super::window::{Period, Window};
use crate::identity::Subject;
use crate::money::Money;

/// What spend can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The API key, by its hash.
    Key,
    /// The user that the program runs as.
    User,
    /// The program.
    Process,
    /// Its control group.
    Cgroup,
    /// Its container.
    Container,
    /// Its Kubernetes pod.
    Pod,
    /// Its Kubernetes namespace.
    Namespace,
    /// Its Kubernetes service account.
    ServiceAccount,
    /// The team, as configured.
    Team,
    /// The host that is called.
    Host,
    /// The provider, by its id.
    Provider,
    /// The model, as the call names it.
    Model,
    /// The session that the program names in the call.
    Session,
}

/// What happens to a call that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed {
    /// It is refused. The default: a cap that lets calls pass is no cap.
    #[default]
    Block,
    /// It is forwarded, and said.
    Warn,
    /// It is forwarded to [`Cap::downgrade_to`], and said.
    Downgrade,
}

/// What is reserved for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapKind {
    /// What the call will cost by experience, and more as its stream grows. The default: the worst
    /// case starves agents.
    #[default]
    Expected,
    /// The most that it can cost.
    Strict,
}

/// A spending cap.
#[derive(Clone, Debug, PartialEq)]
pub struct Cap {
    /// The name, unique, shown to whoever reaches the cap.
    pub name: String,
    /// What it is kept by: each combination of values has an account; none is one for all calls.
    pub per: Vec<Dimension>,
    /// Which calls count: those that have, in each dimension named here, one of its values, or
    /// a value that starts with one of those that end in `*`.
    pub only: Patterns,
    /// For how long spend counts.
    pub window: Window,
    /// Where the days of the window begin.
    pub timezone: TimeZone,
    /// The most that may be spent in a window.
    pub limits: Limits,
    /// The most that one call may take of the same.
    pub per_call: Option<Money>,
    /// What happens beyond it.
    pub on_exceed: OnExceed,
    /// The model to fall to where `on_exceed` says so; otherwise empty.
    pub downgrade_to: String,
    /// What is reserved for a call.
    pub kind: CapKind,
    /// Whether a call that does not fit may go on with a lower limit on its output, one that fits.
    pub clamp: bool,
    /// Whether it is a velocity breaker: what it refuses passes soon.
    pub breaker: bool,
    /// Shares of the limit, in thousandths, at which a warning is due, once per window each.
    pub warn_at_permille: Vec<u16>,
}

/// Values by dimension, some with a `*` at the end.
pub type Patterns = BTreeMap<Dimension, Vec<String>>;

impl Cap {
    /// A cap on all money that is spent in a window, with the defaults of the rest.
    #[must_use]
    pub fn new(name: impl Into<String>, window: Window, limit: Money) -> Self {
        Self {
            name: name.into(),
            per: Vec::new(),
            only: Patterns::new(),
            window,
            timezone: TimeZone::UTC,
            limits: Limits::of_money(limit),
            per_call: None,
            on_exceed: OnExceed::Block,
            downgrade_to: String::new(),
            kind: CapKind::Expected,
            clamp: false,
            breaker: false,
            warn_at_permille: Vec::new(),
        }
    }

    /// Names what the cap counts: its name, what it is kept by, which calls count, and the window;
    /// the same in every process and version.
    #[must_use]
    pub fn id(&self) -> u64 {
        let zone = self.timezone.iana_name().unwrap_or_default();
        let counts = format!(
            "{:?}{:?}{:?}{}{zone}",
            self.name, self.per, self.only, self.window
        );
        // FNV-1a: short texts, few of them, and nobody gains by a collision of their own caps.
        counts
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }

    /// The values that a scope of its accounts names, `user=ann`: none for what the caller lacked. No
    /// values where it is that of all calls, or of all others.
    #[must_use]
    pub fn values_of<'a>(&self, scope: &'a str) -> Vec<(Dimension, Option<&'a str>)> {
        let values = accounts::values_of(&self.per, scope).unwrap_or_default();
        let known = values
            .into_iter()
            .map(|value| Some(value).filter(|value| *value != UNKNOWN));
        self.per.iter().copied().zip(known).collect()
    }

    pub(super) fn period(&self, now_ms: i64) -> Period {
        self.window.period(now_ms, &self.timezone)
    }

    pub(super) fn amount(&self, amounts: Amounts) -> Amount {
        let amount = match self.kind {
            CapKind::Expected => amounts.expected,
            CapKind::Strict => amounts.worst,
        };
        amount.max(Amount::ZERO)
    }

    pub(super) fn counts(&self, subject: &Subject<'_>) -> bool {
        self.only.iter().all(|(dimension, patterns)| {
            is_one_of(dimension.value(subject).unwrap_or_default(), patterns)
        })
    }
}

/// Whether a value is one of `patterns`, or starts with one that ends in `*`.
#[must_use]
pub fn is_one_of(value: &str, patterns: &[String]) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => value.starts_with(start),
            None => value == pattern,
        })
}

impl Dimension {
    /// The name in the configuration and in scopes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Team => "team",
            Self::Host => "host",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Session => "session",
        }
    }

    /// A subject's value; none where it is not known.
    #[must_use]
    pub fn value<'a>(self, subject: &Subject<'a>) -> Option<&'a str> {
        let caller = subject.caller;
        match self {
            Self::Key => caller.key.as_deref(),
            Self::User => caller.user.as_deref(),
            Self::Process => caller.process.as_deref(),
            Self::Cgroup => caller.cgroup.as_deref(),
            Self::Container => caller.container.as_deref(),
            Self::Pod => caller.pod.as_deref(),
            Self::Namespace => caller.namespace.as_deref(),
            Self::ServiceAccount => caller.service_account.as_deref(),
            Self::Team => caller.team.as_deref(),
            Self::Host => Some(subject.host),
            Self::Provider => Some(subject.provider),
            Self::Model => Some(subject.model),
            Self::Session => caller.session.as_deref(),
        }
    }
}
