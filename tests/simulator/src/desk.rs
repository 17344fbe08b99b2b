//! The providers' counter: a request in, its usage and price out, with no connection and no clock of its own.

use std::time::Duration;

use crate::bill::{Api, Usage};
use crate::exchange::Refusal;
use crate::{anthropic, openai};

/// The caches of both providers.
#[derive(Debug, Default)]
pub struct Desk {
    anthropic: anthropic::Cache,
    openai: openai::Memory,
}

/// What a provider makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Tokens of the prompt; none of an answer.
    pub usage: Usage,
    /// What they cost, in nano-dollars (10⁻⁹ USD).
    pub nanodollars: u64,
    /// The signature of a thinking block that follows this request (Anthropic).
    pub signature: String,
    /// Fingerprints of the prefixes of the prompt, as the provider sees them: one for each block or segment.
    pub prefixes: Vec<u64>,
}

/// What a provider says to a request that it does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Message of the error.
    pub message: String,
}

impl Desk {
    /// Serves the request `body` of the account `key` at the time `now` (since the Unix epoch). History is bound to
    /// signatures where the model does that.
    ///
    /// # Errors
    /// What the provider would refuse the request with.
    pub fn serve(
        &mut self,
        api: Api,
        key: &str,
        body: &[u8],
        now: Duration,
    ) -> Result<Served, Refused> {
        let served = match api {
            Api::Messages => anthropic::serve(&mut self.anthropic, key, body, now),
            _ => openai::serve(&mut self.openai, api, key, body, now),
        };
        served.map_err(
            |Refusal {
                 status, message, ..
             }| Refused { status, message },
        )
    }
}
