//! Which hosts belong to a provider of language models: what is intercepted, and what is not.
//!
//! The built-in hosts are in `hosts.txt`, configured ones are added, ignored ones win. A name is
//! either exact or `*.suffix`, which stands for every name below the suffix. No other wildcard
//! exists, so that each entry is also a subtree which the local CA can be constrained to
//! (RFC 5280 section 4.2.1.10); regional hosts are therefore listed region by region.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::api::{Api, Family};

/// Who serves the models behind a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Provider {
    /// Anthropic: the Claude API and Claude Platform on AWS.
    Anthropic,
    /// `OpenAI`, data residency hosts and the Codex backend of `ChatGPT` included.
    OpenAi,
    /// Google: the Gemini API.
    Google,
    /// Google Cloud: Vertex AI, and Claude on Google Cloud.
    Vertex,
    /// Amazon Bedrock.
    Bedrock,
    /// Azure `OpenAI` and Microsoft Foundry.
    Azure,
    /// `OpenRouter`.
    OpenRouter,
    /// `DeepSeek`.
    DeepSeek,
    /// Moonshot AI (Kimi).
    Moonshot,
    /// `MiniMax`.
    MiniMax,
    /// Zhipu, also known as z.ai (GLM).
    Zhipu,
    /// Mistral AI.
    Mistral,
    /// xAI (Grok).
    Xai,
    /// Groq.
    Groq,
    /// Together AI.
    Together,
    /// Fireworks AI.
    Fireworks,
    /// Cohere.
    Cohere,
    /// Perplexity.
    Perplexity,
    /// Cerebras.
    Cerebras,
    /// GitHub Copilot, which speaks the dialects of Anthropic and `OpenAI`.
    Copilot,
    /// Hosts of further providers, which speak as `OpenAI` does.
    Compatible,
    /// Gateways to models of many makers (Cloudflare, Portkey, Helicone, Vercel, …), which speak
    /// the dialects of all.
    Gateway,
    /// A host that only the configuration names; its dialect is told by the path of a request.
    Configured,
}

impl Provider {
    /// Every provider, in the order of declaration.
    pub const ALL: [Self; 23] = [
        Self::Anthropic,
        Self::OpenAi,
        Self::Google,
        Self::Vertex,
        Self::Bedrock,
        Self::Azure,
        Self::OpenRouter,
        Self::DeepSeek,
        Self::Moonshot,
        Self::MiniMax,
        Self::Zhipu,
        Self::Mistral,
        Self::Xai,
        Self::Groq,
        Self::Together,
        Self::Fireworks,
        Self::Cohere,
        Self::Perplexity,
        Self::Cerebras,
        Self::Copilot,
        Self::Compatible,
        Self::Gateway,
        Self::Configured,
    ];

    /// The provider's id, as in the price list, in configuration, records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Google => "google",
            Self::Vertex => "vertex",
            Self::Bedrock => "aws",
            Self::Azure => "azure",
            Self::OpenRouter => "openrouter",
            Self::DeepSeek => "deepseek",
            Self::Moonshot => "moonshotai",
            Self::MiniMax => "minimax",
            Self::Zhipu => "zai",
            Self::Mistral => "mistral",
            Self::Xai => "x-ai",
            Self::Groq => "groq",
            Self::Together => "together",
            Self::Fireworks => "fireworks",
            Self::Cohere => "cohere",
            Self::Perplexity => "perplexity",
            Self::Cerebras => "cerebras",
            Self::Copilot => "github-copilot",
            Self::Compatible => "compatible",
            Self::Gateway => "gateway",
            Self::Configured => "configured",
        }
    }

    /// The provider with this id, if there is one.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str() == id)
    }

    /// Whose price list a call is looked up in: the provider's own, and for a configured host that
    /// of the provider whose dialect the call is in. `OpenAI`'s chat tells nothing: everybody
    /// speaks it, so the list price of the model's maker counts.
    #[must_use]
    pub const fn priced_as(self, api: Api) -> Self {
        match (self, api.family()) {
            (Self::Configured, Family::Anthropic) => Self::Anthropic,
            (Self::Configured, Family::Gemini) => Self::Google,
            (Self::Configured, Family::Bedrock) => Self::Bedrock,
            (Self::Configured, Family::Cohere) => Self::Cohere,
            (provider, _) => provider,
        }
    }
}

/// What the catalogue says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    /// A provider of language models: to be inspected.
    Provider(Provider),
    /// Told by the configuration to be left alone.
    Ignored,
    /// Not a host of a known provider.
    Unknown,
}

/// A host in the configuration that is neither a DNS name nor `*.` and a DNS name, or whose
/// provider is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a DNS name such as `api.example.com`, or `*.example.com` for all names below it, and \
     perhaps `=` and the id of its provider (anthropic, openai, azure, aws, vertex, gateway, …), \
     found {found:?}: give the name without scheme, port and path, and no IP address"
)]
pub struct BadHost {
    /// What the configuration says.
    pub found: String,
}

/// The hosts of all providers.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Names that are listed themselves.
    exact: HashMap<String, Listing>,
    /// Suffixes all names below which are listed.
    below: HashMap<String, Listing>,
}

impl Catalog {
    /// The hosts that Weir knows of itself.
    #[must_use]
    pub fn builtin() -> Self {
        let mut catalog = Self::default();
        let mut provider = Provider::Configured;
        for line in HOSTS.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            if let Some(id) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                provider = Provider::from_id(id).unwrap_or(Provider::Configured);
                continue;
            }
            for host in expand(line) {
                catalog.insert(&host, Listing::Provider(provider));
            }
        }
        catalog
    }

    /// Adds hosts of the configuration: a name, or `name=provider` where the host is a private
    /// endpoint of a known provider, whose prices, errors and dialects then count. A bare name
    /// that is built in keeps its provider.
    ///
    /// # Errors
    ///
    /// The first host that is not a DNS name, or `*.` and a DNS name, or names an unknown provider.
    pub fn with_hosts(mut self, hosts: &[String]) -> Result<Self, BadHost> {
        for entry in hosts {
            let (host, provider) = match entry.split_once('=') {
                Some((host, id)) => (host.trim_end(), Some(id.trim_start())),
                None => (entry.as_str(), None),
            };
            let bad = |_| BadHost {
                found: entry.clone(),
            };
            let host = checked(host).map_err(bad)?;
            if let Some(id) = provider {
                let provider = Provider::from_id(id).ok_or_else(|| BadHost {
                    found: entry.clone(),
                })?;
                self.insert(&host, Listing::Provider(provider));
                continue;
            }
            let known = match host.strip_prefix("*.") {
                Some(suffix) => self.below.contains_key(suffix),
                None => matches!(self.lookup(&host), Listing::Provider(_)),
            };
            if !known {
                self.insert(&host, Listing::Provider(Provider::Configured));
            }
        }
        Ok(self)
    }

    /// Marks hosts as to be left alone, whatever else lists them.
    ///
    /// # Errors
    ///
    /// The first host that is not a DNS name, or `*.` and a DNS name.
    pub fn with_ignored(mut self, hosts: &[String]) -> Result<Self, BadHost> {
        for host in hosts {
            self.insert(&checked(host)?, Listing::Ignored);
        }
        Ok(self)
    }

    /// What is known of `host`, in any case, with or without the dot of the root.
    ///
    /// An exact entry wins over one for all names below a suffix, and of those the longest; but
    /// an ignored suffix wins over everything below it.
    #[must_use]
    pub fn lookup(&self, host: &str) -> Listing {
        let host = normal(host);
        let mut found = self.exact.get(&host).copied();
        let mut rest = host.as_str();
        while let Some((_, suffix)) = rest.split_once('.') {
            match self.below.get(suffix).copied() {
                Some(Listing::Ignored) => return Listing::Ignored,
                listing => found = found.or(listing),
            }
            rest = suffix;
        }
        found.unwrap_or(Listing::Unknown)
    }

    /// The DNS subtrees that contain every host to be inspected, sorted, none inside another:
    /// what a local CA has to be permitted (RFC 5280 section 4.2.1.10).
    #[must_use]
    pub fn permitted_subtrees(&self) -> Vec<String> {
        let names: BTreeSet<&str> = [&self.exact, &self.below]
            .into_iter()
            .flatten()
            .filter(|(name, listing)| {
                matches!(listing, Listing::Provider(_)) && self.lookup(name) != Listing::Ignored
            })
            .map(|(name, _)| name.as_str())
            .collect();
        let inside_another = |name: &str| {
            std::iter::successors(Some(name), |name| {
                name.split_once('.').map(|(_, rest)| rest)
            })
            .skip(1)
            .any(|ancestor| names.contains(ancestor))
        };
        names
            .iter()
            .filter(|name| !inside_another(name))
            .map(|name| (*name).to_owned())
            .collect()
    }

    fn insert(&mut self, host: &str, listing: Listing) {
        match host.strip_prefix("*.") {
            Some(suffix) => self.below.insert(suffix.to_owned(), listing),
            None => self.exact.insert(host.to_owned(), listing),
        };
    }
}

/// One line of the host file as the names it stands for: `{aws}` and `{google}` become regions.
fn expand(line: &str) -> Vec<String> {
    for (mark, regions) in [("{aws}", AWS_REGIONS), ("{google}", GOOGLE_REGIONS)] {
        if line.contains(mark) {
            return regions
                .split_ascii_whitespace()
                .map(|region| line.replace(mark, region))
                .collect();
        }
    }
    vec![line.to_owned()]
}

/// Lower case, without the dot of the root.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// A host of the configuration in normal form.
fn checked(host: &str) -> Result<String, BadHost> {
    let name = normal(host);
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_address = labels
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if labels.len() > NAME_BYTES_MAX || is_address || !labels.split('.').all(is_label) {
        return Err(BadHost {
            found: host.to_owned(),
        });
    }
    Ok(name)
}

/// The built-in hosts: sections by provider id, one host a line.
const HOSTS: &str = include_str!("hosts.txt");

/// Regions of Amazon Bedrock. A host in a region that is missing here is not inspected until it is
/// configured: the alternative, all of `amazonaws.com`, would be too much power for a local CA.
const AWS_REGIONS: &str = "af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 \
    ap-northeast-3 ap-south-1 ap-south-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 \
    ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7 ca-central-1 ca-west-1 \
    eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 \
    il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 \
    us-gov-east-1 us-gov-west-1 us-west-1 us-west-2";

/// Regions of Vertex AI, listed for the same reason.
const GOOGLE_REGIONS: &str = "africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 \
    asia-northeast3 asia-south1 asia-south2 asia-southeast1 asia-southeast2 australia-southeast1 \
    australia-southeast2 europe-central2 europe-north1 europe-southwest1 europe-west1 \
    europe-west2 europe-west3 europe-west4 europe-west6 europe-west8 europe-west9 europe-west12 \
    global me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2 \
    southamerica-east1 southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-south1 \
    us-west1 us-west2 us-west3 us-west4";

/// The longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// The longest DNS name in text form (RFC 1035 section 2.3.4: 255 octets on the wire).
const NAME_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests;
