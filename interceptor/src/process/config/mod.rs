//! The configuration as the code sees it: checked, complete, immutable.
//!
//! `file` holds the raw types that mirror the TOML text and the way from there to here;
//! `live` replaces the configuration in a running process.

mod caps;
#[cfg(test)]
mod example;
mod fees;
mod file;
mod live;
mod patterns;
mod pricing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use live::{Live, Reload, Standing};
pub(crate) use patterns::Known;
pub use pricing::{Pricing, Subscriptions, Unpriced};
use weir_core::caps::is_one_of;
pub use weir_core::caps::{Cap, CapKind, Dimension, OnExceed, Patterns, Rolling, Window};
use weir_core::identity::{Caller, Subject};
use weir_core::money::Money;

/// Everything that can be configured. [`Config::default`] is what runs without a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from; `None` for the built-in defaults.
    pub source: Option<PathBuf>,
    /// `weir run --observe`: nothing is edited and nothing refused, whatever the rest says.
    pub observe: bool,
    /// Which connections are looked at.
    pub intercept: Intercept,
    /// How providers are reached.
    pub upstream: Upstream,
    /// What is done for the prompt cache.
    pub cache: Cache,
    /// Spend caps, in the order of the file.
    pub caps: Vec<Cap>,
    /// Velocity breakers: how fast money may be spent. Without configuration, one that warns.
    pub breakers: Vec<Cap>,
    /// Who is of which team: by its name, values by dimension, one of which a caller has. Of several
    /// teams a caller is in the first by name.
    pub teams: BTreeMap<String, Patterns>,
    /// Who hears of warnings.
    pub alerts: Alerts,
    /// What hosts charge on top of their prices, in basis points (550 are 5.5 %): for reports.
    pub fees: BTreeMap<String, u32>,
    /// Prices of one's own, and what to do without one.
    pub pricing: Pricing,
    /// Where records are kept.
    pub ledger: Ledger,
    /// The admin server.
    pub admin: Admin,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: None,
            observe: false,
            intercept: Intercept::default(),
            upstream: Upstream::default(),
            cache: Cache::default(),
            caps: Vec::new(),
            breakers: vec![default_breaker()],
            teams: BTreeMap::new(),
            alerts: Alerts::default(),
            fees: BTreeMap::new(),
            pricing: Pricing::default(),
            ledger: Ledger::default(),
            admin: Admin::default(),
        }
    }
}

impl Config {
    /// Reads `given` (`--config`), else the file named by `WEIR_CONFIG`, else
    /// `/etc/weir/weir.toml` where it exists, else takes the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or says something that Weir does not understand.
    pub fn load(given: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = match path(given) {
            Some(path) => file::read(&path)?,
            None => Self::default(),
        };
        // A URL with a password in it belongs into the environment rather than into the file.
        if let Some(url) = std::env::var_os(LEDGER_URL_VARIABLE).filter(|url| !url.is_empty()) {
            config.ledger.url = url.to_string_lossy().into_owned();
        }
        Ok(config)
    }

    /// Reads `text` as if it stood in the file `path`, which is only named in errors.
    ///
    /// # Errors
    /// The text is not TOML, has an unknown key, or a value that Weir does not understand.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        file::parse(text, path)
    }
}

impl Config {
    /// The caps that count by keys, or by teams that are told by them: by their names.
    pub(crate) fn caps_by_key(&self) -> Vec<&str> {
        let mut teams = self.teams.values();
        let are_teams_by_key = teams.any(|members| members.contains_key(&Dimension::Key));
        let is_by_key =
            |of: &Dimension| *of == Dimension::Key || *of == Dimension::Team && are_teams_by_key;
        let caps = self.caps.iter().chain(&self.breakers);
        caps.filter(|cap| cap.per.iter().chain(cap.only.keys()).any(is_by_key))
            .map(|cap| cap.name.as_str())
            .collect()
    }

    /// The team that a caller is in.
    #[must_use]
    pub fn team_of(&self, caller: &Caller) -> Option<String> {
        let subject = Subject {
            caller,
            provider: "",
            host: "",
            model: "",
        };
        let is_in = |members: &Patterns| {
            members.iter().any(|(dimension, patterns)| {
                dimension
                    .value(&subject)
                    .is_some_and(|value| is_one_of(value, patterns))
            })
        };
        let found = self.teams.iter().find(|(_, members)| is_in(members));
        found.map(|(name, _)| name.clone())
    }
}

/// The file that [`Config::load`] reads, if any.
#[must_use]
pub fn path(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = given {
        return Some(path.to_owned());
    }
    if let Some(path) = std::env::var_os(CONFIG_VARIABLE).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let path = PathBuf::from(CONFIG_PATH_DEFAULT);
    path.exists().then_some(path)
}

/// `[intercept]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// Destination ports that are redirected.
    pub ports: Vec<u16>,
    /// LLM hosts in addition to the built-in catalogue, in lower case: names, or `*.` and a name
    /// for all below it.
    /// Each may name the provider behind a private endpoint: `llm.corp.example=azure`.
    pub hosts: Vec<String>,
    /// Hosts that are tunnelled untouched although the catalogue knows them; as `hosts`.
    pub ignore: Vec<String>,
    /// What happens to traffic that Weir cannot handle.
    pub fail: Fail,
}

impl Default for Intercept {
    fn default() -> Self {
        Self {
            ports: PORTS_DEFAULT.to_vec(),
            hosts: vec![],
            ignore: vec![],
            fail: Fail::Open,
        }
    }
}

/// What happens when Weir is dead, hung or overloaded, or cannot read a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fail {
    /// Applications reach their providers directly. The default: watching must not break work.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// `[upstream]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Addresses to dial for a server name (lower case) instead of the original destination.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// PEM files with roots that are trusted for upstream TLS in addition to the system's.
    pub extra_roots: Vec<PathBuf>,
}

/// `[alerts]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// The URL that warnings are posted to, which often is a secret by itself.
    pub webhook: Option<Secret>,
}

/// A secret, or where it is read from when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// It stands in the configuration.
    Here(String),
    /// It is the content of a file, without white space around it.
    File(PathBuf),
    /// It is the value of an environment variable.
    Variable(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(_) => f.write_str("Here(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
        }
    }
}

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    /// In words, what is not there.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Here(secret) => Ok(secret.clone()),
            Self::File(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("expected to read {}: {error}", path.display())),
            Self::Variable(name) => std::env::var(name)
                .map_err(|error| format!("expected the environment variable {name}: {error}")),
        }
    }
}

/// The velocity breaker that runs where none is configured: it warns of a user who spends
/// [`BREAKER_LIMIT_DEFAULT`] within [`BREAKER_SECONDS_DEFAULT`].
#[must_use]
pub fn default_breaker() -> Cap {
    let window = Rolling::of_seconds(BREAKER_SECONDS_DEFAULT).map_or(Window::Hour, Window::Rolling);
    Cap {
        per: vec![Dimension::User],
        on_exceed: OnExceed::Warn,
        breaker: true,
        ..Cap::new(BREAKER_NAME_DEFAULT, window, BREAKER_LIMIT_DEFAULT)
    }
}

/// An amount of dollars as it is written, `20`, `0.5` or `$20`; none where it is something else,
/// negative, finer than a nano-dollar or too large.
pub(crate) fn usd(text: &str) -> Option<Money> {
    let text = text.strip_prefix('$').unwrap_or(text);
    file::decimal(text, file::NANO_DIGITS).map(Money::from_nanos)
}

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// What is done for the prompt cache.
    pub mode: CacheMode,
    /// Whether values that no rule knows are learned from the prompts that come.
    pub learn: bool,
    /// `[[cache.rule]]`, as the text of a rules file: what is added to the built-in rules.
    pub rules: String,
    /// The secret that nodes share, so that a conversation goes on at any of them.
    pub secret_file: Option<PathBuf>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            mode: CacheMode::default(),
            learn: LEARN_DEFAULT,
            rules: String::new(),
            secret_file: None,
        }
    }
}

/// What is done for the prompt cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Nothing is said about it.
    Off,
    /// It is reported what `Rewrite` would save. The default: no byte changes unasked.
    #[default]
    Observe,
    /// Prompts are edited so that the cache hits.
    Rewrite,
}

/// `[ledger]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// `sqlite:FILE`, relative to the state directory unless absolute; or `postgres://…`, shared by
    /// many nodes. `WEIR_LEDGER_URL` wins over the file.
    pub url: String,
    /// File with the password for PostgreSQL, which may also be in the URL or in `PGPASSWORD`.
    pub password_file: Option<PathBuf>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            url: LEDGER_URL_DEFAULT.to_owned(),
            password_file: None,
        }
    }
}

/// `[admin]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address of the admin server.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: ADMIN_LISTEN_DEFAULT,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: expected a readable configuration file, found: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that Weir does not understand.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What was expected, what was found, what to do.
        message: String,
    },
}

/// Names the configuration file where `--config` does not.
pub const CONFIG_VARIABLE: &str = "WEIR_CONFIG";
/// Wins over `ledger.url`.
pub const LEDGER_URL_VARIABLE: &str = "WEIR_LEDGER_URL";
/// Read where neither `--config` nor `WEIR_CONFIG` names a file.
pub const CONFIG_PATH_DEFAULT: &str = "/etc/weir/weir.toml";
/// HTTPS: no provider in the catalogue is reached on another port.
pub const PORTS_DEFAULT: [u16; 1] = [443];
/// Learning keeps hashes only, and edits nothing unless `mode` asks for that.
pub const LEARN_DEFAULT: bool = true;
/// In the state directory, which is private to its owner.
pub const LEDGER_URL_DEFAULT: &str = "sqlite:weir.db";
/// Loopback only: the admin server knows no users. The port lies in no ephemeral range.
pub const ADMIN_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// So that a cap means the same on each node.
pub const CAP_TIMEZONE_DEFAULT: TimeZone = TimeZone::UTC;
/// The name of the breaker that runs where none is configured.
pub const BREAKER_NAME_DEFAULT: &str = "default velocity breaker";
/// $20 in ten minutes is ten times what a busy coding agent spends, and what a loop over a full
/// context of a large model reaches within minutes.
pub const BREAKER_LIMIT_DEFAULT: Money = Money::from_nanos(20_000_000_000);
/// Ten minutes.
pub const BREAKER_SECONDS_DEFAULT: u32 = 600;
/// Half gives time to react, four fifths is the last call.
pub const CAP_WARN_AT_PERMILLE_DEFAULT: [u16; 2] = [500, 800];
