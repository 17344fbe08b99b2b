//! Anthropic's cache rules and preserved thinking, rule by rule.

mod reads_and_writes;

mod changes;

mod refusals;

mod binding;

use std::time::Duration;

use super::cache::Cache;
use super::prompt::Prompt;
use crate::bill::Usage;
use crate::json::Json;
use crate::models::{Provider, find};
use crate::tokens::prose;

/// A cache, an account and a time.
#[derive(Default)]
pub(super) struct Lab {
    pub(super) cache: Cache,
    pub(super) now: Duration,
}

impl Lab {
    /// Sends a request and gives uncached, read, written for 5 minutes, written for 1 hour.
    pub(super) fn send(&mut self, body: &str) -> [u64; 4] {
        self.send_as(body, "claude-opus-5-5", "account")
    }

    pub(super) fn send_as(&mut self, body: &str, model: &str, key: &str) -> [u64; 4] {
        let model = find(Provider::Anthropic, model).unwrap();
        let body = Json::parse(body.as_bytes()).expect(body);
        let prompt = Prompt::render(&body, model, key).unwrap();
        let plan = self.cache.plan(&prompt, model.cacheable_min, self.now);
        self.cache.commit(&plan, self.now);
        buckets(&plan.usage)
    }
}

pub(super) const fn buckets(usage: &Usage) -> [u64; 4] {
    [
        usage.input_uncached,
        usage.cache_read,
        usage.cache_write_short,
        usage.cache_write_long,
    ]
}

/// A text block of `tokens` tokens; `n` makes it another one of the same length.
pub(super) fn block(tokens: u64, n: u64, more: &str) -> String {
    let text = Json::from(prose(tokens, n));
    format!(r#"{{"type":"text","text":{text}{more}}}"#)
}

pub(super) const MARK: &str = r#","cache_control":{"type":"ephemeral"}"#;
pub(super) const MARK_1H: &str = r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#;

pub(super) fn body(system: &str, user: &str, more: &str) -> String {
    format!(r#"{{"system":[{system}],"messages":[{{"role":"user","content":[{user}]}}]{more}}}"#)
}
