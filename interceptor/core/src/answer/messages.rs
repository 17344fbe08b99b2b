//! Answers of Anthropic Messages.
//!
//! A stream tells usage twice or more: all of the input and a first guess of the output in
//! `message_start`, running totals in each `message_delta`. A later number replaces an earlier
//! one, and is never added. What was written to the cache is told by lifetime only at the start.

use crate::sse::Event;
use crate::usage::Usage;

use super::{Answer, Found, Object, Part};

pub(super) fn read_event(found: &mut Found, event: &Event<'_>) {
    match event_type(event).as_ref() {
        b"content_block_delta" => found.delta(),
        b"message_start" => {
            if let Some(message) = Object::read(event.data).and_then(|data| data.object("message"))
            {
                read_message(found, &message);
            }
        }
        b"message_delta" => {
            let Some(data) = Object::read(event.data) else {
                return;
            };
            if let Some(reason) = data
                .object("delta")
                .and_then(|delta| delta.name("stop_reason"))
            {
                found.answer.stop_reason = Some(reason);
            }
            read_diagnosis(found, &data);
            read_usage(found, &data);
        }
        b"message_stop" => found.answer.complete = true,
        b"error" => {
            if let Some(data) = Object::read(event.data) {
                found.error(&data);
            }
        }
        _ => {}
    }
}

pub(super) fn read_body(found: &mut Found, body: &Object<'_>) {
    found.error(body);
    read_message(found, body);
}

/// The type of an event: its name or, where a relay left that out, the member `type` of the data,
/// which providers put first.
pub(super) fn event_type<'a>(event: &Event<'a>) -> std::borrow::Cow<'a, [u8]> {
    if !event.name.is_empty() {
        return event.name.into();
    }
    if let Some(rest) = event.data.strip_prefix(br#"{"type":""#) {
        let end = memchr::memchr(b'"', rest).unwrap_or_default();
        return rest.get(..end).unwrap_or_default().into();
    }
    let name = Object::read(event.data).and_then(|data| data.name("type"));
    name.unwrap_or_default().into_bytes().into()
}

fn read_message(found: &mut Found, message: &Object<'_>) {
    found.is_from(message, "model", "id");
    found.answer.stop_reason = message.name("stop_reason");
    read_diagnosis(found, message);
    read_usage(found, message);
}

/// Reads why less came from the cache. A stream may tell it late: null is "not known yet".
fn read_diagnosis(found: &mut Found, holder: &Object<'_>) {
    let diagnostics = holder.object("diagnostics");
    let reason = diagnostics.and_then(|told| told.object("cache_miss_reason")?.name("type"));
    if reason.is_some() {
        found.answer.cache_diagnosis = reason;
    }
}

fn read_usage(found: &mut Found, holder: &Object<'_>) {
    let Some(usage) = holder.object("usage") else {
        return;
    };
    let answer = &mut found.answer;
    for (name, field) in [
        ("service_tier", &mut answer.service_tier),
        ("speed", &mut answer.speed),
        ("inference_geo", &mut answer.inference_geo),
    ] {
        if let Some(value) = usage.name(name) {
            *field = Some(value);
        }
    }
    // OpenRouter and xAI tell their charge here too.
    let cost = super::cost::of_usage(&usage);
    answer.reported_cost = cost.or(answer.reported_cost);
    let parts: Vec<Part> = usage
        .objects("iterations")
        .map(|pass| part(&pass))
        .collect();
    if !parts.is_empty() {
        answer.parts = parts;
    }
    found.counts.get_or_insert_default().replace(&usage);
}

/// One entry of `iterations`.
fn part(pass: &Object<'_>) -> Part {
    let mut counts = Counts::default();
    counts.replace(pass);
    Part {
        id: None,
        model: pass.name("model"),
        inference_geo: None,
        usage: counts.usage(),
    }
}

/// The counts of a `usage` object as they stand.
#[derive(Debug, Default)]
pub(super) struct Counts {
    input: u64,
    read: u64,
    written: u64,
    written_5m: u64,
    written_1h: u64,
    output: u64,
    thinking: u64,
    web_searches: u64,
    credit_redeemed: bool,
}

impl Counts {
    /// Takes over every count that `usage` has.
    fn replace(&mut self, usage: &Object<'_>) {
        let set = |holder: Option<&Object<'_>>, name: &str, count: &mut u64| {
            if let Some(value) = holder.and_then(|holder| holder.whole(name)) {
                *count = value;
            }
        };
        set(Some(usage), "input_tokens", &mut self.input);
        set(Some(usage), "cache_read_input_tokens", &mut self.read);
        set(
            Some(usage),
            "cache_creation_input_tokens",
            &mut self.written,
        );
        set(Some(usage), "output_tokens", &mut self.output);
        let split = usage.object("cache_creation");
        set(
            split.as_ref(),
            "ephemeral_5m_input_tokens",
            &mut self.written_5m,
        );
        set(
            split.as_ref(),
            "ephemeral_1h_input_tokens",
            &mut self.written_1h,
        );
        let details = usage.object("output_tokens_details");
        set(details.as_ref(), "thinking_tokens", &mut self.thinking);
        let credit = usage
            .object("fallback_credit")
            .and_then(|credit| credit.object("status"));
        if let Some(status) = credit {
            self.credit_redeemed = status.name("type").as_deref() == Some("redeemed");
        }
        let tools = usage.object("server_tool_use");
        set(
            tools.as_ref(),
            "web_search_requests",
            &mut self.web_searches,
        );
    }

    /// In disjoint buckets. A total of written tokens that outgrew its split grew by writes of the
    /// default lifetime: those are what server tools make.
    fn usage(&self) -> Usage {
        let written = self
            .written
            .max(self.written_5m.saturating_add(self.written_1h));
        // A retry on another model for which the provider gave credit pays reads, not writes.
        let (read, written, long) = if self.credit_redeemed {
            (self.read.saturating_add(written), 0, 0)
        } else {
            (self.read, written, self.written_1h)
        };
        Usage {
            input: self.input,
            cache_read: read,
            cache_write: written.saturating_sub(long),
            cache_write_long: long,
            output: self.output,
            reasoning: self.thinking.min(self.output),
            web_searches: self.web_searches,
            ..Usage::default()
        }
    }

    /// Puts the usage into the answer. Where passes are told apart, all of them are billed, also
    /// those which the totals leave out (compaction); searches are counted in the totals only.
    pub(super) fn settle(&self, answer: &mut Answer) {
        let totals = self.usage();
        if let Some(first) = answer.parts.first_mut() {
            first.usage.web_searches = totals.web_searches;
            first.usage.reasoning = totals.reasoning.min(first.usage.output);
        }
        answer.usage = Some(if answer.parts.is_empty() {
            totals
        } else {
            answer
                .parts
                .iter()
                .fold(Usage::default(), |sum, part| sum.plus(&part.usage))
        });
    }
}
