//! Answers of Anthropic Messages.
//!
//! A stream tells usage twice or more: all of the input and a first guess of the output in
//! `message_start`, running totals in each `message_delta`. A later number replaces an earlier
//! one, and is never added. What was written to the cache is told by lifetime only at the start.

use crate::sse::Event;
use crate::usage::Usage;

use super::{Answer, Found, NotACount, Object, Part};

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
    let counts = found.counts.get_or_insert_default();
    let passes = usage.objects("iterations").map(|pass| part(&pass));
    let parts = passes.collect::<Result<Vec<Part>, _>>();
    match counts.replace(&usage).and(parts) {
        Ok(parts) if parts.is_empty() => {}
        Ok(parts) => answer.parts = parts,
        // What is told later does not replace all of it.
        Err(NotACount) => counts.unreadable = true,
    }
}

/// One entry of `iterations`.
fn part(pass: &Object<'_>) -> Result<Part, NotACount> {
    let mut counts = Counts::default();
    counts.replace(pass)?;
    Ok(Part {
        id: None,
        model: pass.name("model"),
        inference_geo: None,
        usage: counts.usage(),
    })
}

/// The counts of a `usage` object as they stand.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whether input or output was told at all.
    told: bool,
    unreadable: bool,
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
    fn replace(&mut self, usage: &Object<'_>) -> Result<(), NotACount> {
        let at_top = [
            ("input_tokens", &mut self.input),
            ("output_tokens", &mut self.output),
            ("cache_read_input_tokens", &mut self.read),
            ("cache_creation_input_tokens", &mut self.written),
        ];
        set(usage, at_top)?;
        self.told |= usage
            .first_count(["input_tokens", "output_tokens"])?
            .is_some();
        if let Some(split) = usage.object("cache_creation") {
            let by_lifetime = [
                ("ephemeral_5m_input_tokens", &mut self.written_5m),
                ("ephemeral_1h_input_tokens", &mut self.written_1h),
            ];
            set(&split, by_lifetime)?;
        }
        if let Some(details) = usage.object("output_tokens_details") {
            set(&details, [("thinking_tokens", &mut self.thinking)])?;
        }
        if let Some(tools) = usage.object("server_tool_use") {
            set(&tools, [("web_search_requests", &mut self.web_searches)])?;
        }
        let credit = usage
            .object("fallback_credit")
            .and_then(|credit| credit.object("status"));
        if let Some(status) = credit {
            self.credit_redeemed = status.name("type").as_deref() == Some("redeemed");
        }
        Ok(())
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
        answer.usage_unreadable |= self.unreadable;
        if !self.told && answer.parts.is_empty() {
            return;
        }
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

/// Replaces the counts that `holder` tells.
fn set<const N: usize>(
    holder: &Object<'_>,
    counts: [(&str, &mut u64); N],
) -> Result<(), NotACount> {
    for (name, count) in counts {
        if let Some(told) = holder.count(name)? {
            *count = told;
        }
    }
    Ok(())
}
