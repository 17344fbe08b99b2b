//! Cache breakpoints where a provider wants them and the client set too few; and the names by which
//! providers route a call to the cache that knows its prompt.
//!
//! Breakpoints are no part of what is cached or signed, so they may come and go from turn to turn.
//! What they cost is the writing: they are added only where something says that it will be read.

use std::ops::Range;

use memchr::memmem;

use crate::api::Api;
use crate::catalog::Provider;
use crate::edit::Edit;
use crate::json::{self, Kind};
use crate::prompt::{HashKey, Lifetime, Prompt, Section, Segment, SegmentKind, with_comma};
use crate::volatile::Span;

use super::{Thread, Warmth};

/// What is known of a call that breakpoints depend on.
#[derive(Clone, Copy, Debug)]
pub struct Markable<'a> {
    /// The API.
    pub api: Api,
    /// The provider.
    pub provider: Provider,
    /// The model asked for.
    pub model: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Its prompt.
    pub prompt: &'a Prompt,
    /// Its place in the conversation.
    pub thread: &'a Thread,
    /// The shortest prefix that is cached, in bytes of the body, about.
    pub minimum_bytes: usize,
    /// What of it was sent so lately that it would have been read.
    pub warm: Warmth,
    /// Edits that are made already: nothing is set inside of them.
    pub edits: &'a [Edit],
}

/// How breakpoints are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A member `cache_control` of a block.
    Member,
    /// A block of its own behind it (Converse).
    Block,
}

/// The breakpoints that are missing. Those of the client stay, there are never more than four, and
/// longer lifetimes come first.
#[must_use]
pub fn breakpoints(call: &Markable<'_>) -> Vec<Edit> {
    let Some(style) = style(call) else {
        return Vec::new();
    };
    let mut edits = Vec::new();
    let mut automatic = call.prompt.automatic.as_ref();
    // The older integration of Claude into Bedrock knows no top-level marker, and refuses it.
    if call.api == Api::InvokeModel
        && let Some(marker) = automatic.take()
    {
        edits.push(edit(marker.member.clone(), String::new()));
    }
    let explicit = call.prompt.segments.iter().flat_map(Segment::markers);
    let set = explicit
        .count()
        .saturating_add(usize::from(automatic.is_some()));
    let is_replaced = !edits.is_empty();
    let by_client = set > 0 || is_replaced;
    let mut left = BREAKPOINTS_MAX.saturating_sub(set);
    for index in wanted(call, automatic.is_some(), by_client, is_replaced) {
        let Some(segment) = call.prompt.segments.get(index) else {
            continue;
        };
        let made = mark(call, index, segment, style);
        if left > 0 && !made.is_empty() {
            edits.extend(made);
            left = left.saturating_sub(1);
        }
    }
    edits
}

/// How the provider takes breakpoints, if it wants them.
fn style(call: &Markable<'_>) -> Option<Style> {
    let is_claude = memmem::find(call.model.as_bytes(), b"claude").is_some();
    match (call.api, call.provider) {
        (
            Api::Messages,
            Provider::Anthropic | Provider::Vertex | Provider::Azure | Provider::OpenRouter,
        ) => Some(Style::Member),
        (Api::InvokeModel, Provider::Bedrock) if is_claude => Some(Style::Member),
        (Api::Converse, Provider::Bedrock) => (is_claude || is_nova(call)).then_some(Style::Block),
        _ => None,
    }
}

/// Whether it is a model of Amazon's own, which caches its system prompt and the messages, and refuses a marker elsewhere.
fn is_nova(call: &Markable<'_>) -> bool {
    memmem::find(call.model.as_bytes(), b"amazon.nova").is_some()
}

/// Whether the conversation will most probably go on: tools were called, or it did so before.
fn goes_on(call: &Markable<'_>) -> bool {
    let results = call.prompt.segments.iter();
    let has_results = results.rev().any(|s| s.kind == SegmentKind::ToolResult);
    !call.thread.is_start && (has_results || call.thread.turns.len() > 2)
}

/// Segments that want a breakpoint, the most useful first: where what is written will be read, as far
/// as the calls before tell, or where the client's own marker `is_replaced`.
fn wanted(call: &Markable<'_>, automatic: bool, by_client: bool, is_replaced: bool) -> Vec<usize> {
    let warm = call.warm;
    let segments = &call.prompt.segments;
    let in_section = |section| {
        let found = segments
            .iter()
            .rposition(|s| s.section == section && is_markable(s))?;
        // A body may have its members in any order: lengths count, not places.
        let prefix = segments.get(..=found)?.iter();
        let bytes = prefix.fold(0_usize, |sum, s| sum.saturating_add(s.range.len()));
        (bytes >= call.minimum_bytes).then_some(found)
    };
    let turns = &call.thread.turns;
    let end_of = |turn: usize| {
        let message = turns.get(turn)?.message;
        let own = call.prompt.messages.get(message)?.segments.clone();
        own.rev()
            .find(|index| segments.get(*index).is_some_and(is_markable))
    };
    let last = turns.len().checked_sub(1).and_then(end_of);
    let before = turns.len().checked_sub(2).and_then(end_of);
    let marked = |from: usize| {
        let behind = segments.get(from..).unwrap_or_default();
        automatic || behind.iter().any(|segment| segment.breakpoint().is_some())
    };
    // Before another marker a breakpoint is free: what it writes is written anyway.
    let pays = |is_warm: bool, at: usize| is_warm || is_replaced || marked(at.saturating_add(1));
    let mut wanted = Vec::new();
    wanted.extend(in_section(Section::System).filter(|at| pays(warm.system, *at)));
    if let Some(last) = last {
        let since = before.map_or(0, |before| before.saturating_add(1));
        let goes_on = by_client && !call.thread.is_start || goes_on(call);
        if goes_on && (warm.turn || is_replaced) && !marked(since) {
            wanted.insert(0, last);
        }
        // What the turn before wrote is out of the reach of the last breakpoint.
        let is_out = |before: &usize| positions(segments, *before, last) > LOOK_BACK;
        let before = before.filter(is_out);
        wanted.extend(before.filter(|before| pays(warm.turn, *before)));
    }
    if !is_nova(call) {
        wanted.extend(in_section(Section::Tools).filter(|at| pays(warm.tools, *at)));
    }
    wanted.retain(|index| {
        segments
            .get(*index)
            .is_some_and(|s| s.breakpoint().is_none())
    });
    wanted
}

/// The positions from one segment to another as the look-back counts them: a run of calls of tools,
/// or of their results, is one.
fn positions(segments: &[Segment], from: usize, to: usize) -> usize {
    let (mut count, mut run) = (0_usize, None);
    for segment in segments.get(from..=to).unwrap_or_default() {
        let kind = match segment.kind {
            SegmentKind::ToolUse | SegmentKind::ToolResult => Some(segment.kind),
            _ => None,
        };
        if kind.is_none() || kind != run {
            count = count.saturating_add(1);
        }
        run = kind;
    }
    count
}

fn is_markable(segment: &Segment) -> bool {
    let is_empty = segment.text.as_ref().is_some_and(|text| text.len() <= 2);
    segment.kind != SegmentKind::Thinking && !segment.deferred && !is_empty
}

/// The edits that set a breakpoint on a segment; none, where there can't be one.
fn mark(call: &Markable<'_>, index: usize, segment: &Segment, style: Style) -> Vec<Edit> {
    let is_string = call.body.get(segment.range.start) == Some(&b'"');
    let end = segment.range.end;
    let taken = |at: usize| {
        let inside = |edit: &&Edit| edit.range.start < at && at < edit.range.end;
        call.edits.iter().any(|edit| inside(&edit))
    };
    if !is_markable(segment) || taken(end.saturating_sub(1)) || taken(end) {
        return Vec::new();
    }
    let later = call.prompt.segments.get(index..).unwrap_or_default();
    let later = later.iter().flat_map(Segment::markers);
    let is_long = |lifetime| lifetime == Lifetime::Long;
    let long = later.map(|m| m.lifetime).any(is_long)
        || call
            .prompt
            .automatic
            .as_ref()
            .is_some_and(|m| is_long(m.lifetime));
    let ttl = if long { r#","ttl":"1h""# } else { "" };
    let member = format!(r#","cache_control":{{"type":"ephemeral"{ttl}}}"#);
    match style {
        Style::Block if is_string => Vec::new(),
        Style::Block => {
            let block = format!(r#",{{"cachePoint":{{"type":"default"{ttl}}}}}"#);
            vec![edit(end..end, block)]
        }
        Style::Member if is_string => {
            let is_whole = segment.message.is_none_or(|message| {
                let message = call.prompt.messages.get(message);
                message.is_some_and(|m| m.content.as_ref() == Some(&segment.range))
            });
            if !is_whole || segment.message.is_none() && has_siblings(call.prompt, segment) {
                return Vec::new();
            }
            let start = segment.range.start;
            vec![
                edit(start..start, r#"[{"type":"text","text":"#.to_owned()),
                edit(end..end, format!("{member}}}]")),
            ]
        }
        Style::Member => {
            let brace = end.saturating_sub(1);
            let is_object = call.body.get(brace) == Some(&b'}') && segment.range.len() > 2;
            let is_object = is_object.then(|| edit(brace..brace, member));
            is_object.into_iter().collect()
        }
    }
}

fn has_siblings(prompt: &Prompt, segment: &Segment) -> bool {
    let own = prompt
        .segments
        .iter()
        .filter(|s| s.section == segment.section);
    own.count() > 1
}

fn edit(range: Range<usize>, replacement: String) -> Edit {
    Edit {
        range,
        replacement: replacement.into_bytes(),
        rule: BREAKPOINT.into(),
    }
}

/// What helps the provider to route a call to where its prompt is cached: a key where there is none,
/// and no order of providers that switches the routing off (`OpenRouter`).
#[must_use]
pub fn routing(call: &Markable<'_>, host: &str, spans: &[Span], key: &HashKey) -> Vec<Edit> {
    let mut edits = Vec::new();
    if takes_key(call, host) && call.prompt.cache_key.is_none() {
        let family = family((call.body, call.prompt), None, spans, key);
        let family = u64::try_from(family >> 64);
        let at = call.prompt.opening;
        edits.push(Edit {
            range: at..at,
            replacement: format!(r#""prompt_cache_key":"weir-{:016x}","#, family.unwrap_or(0))
                .into(),
            rule: CACHE_KEY.into(),
        });
    }
    if call.provider == Provider::OpenRouter
        && let Some(provider) = &call.prompt.provider
    {
        edits.extend(unordered(call.body, provider));
    }
    edits
}

/// The prompt of a workload: tools and system prompt without the values that change. Tools are a set:
/// of a client that sends them in any order, all calls are one workload. What the provider takes out
/// by its place is `skip`ped: it may be another in each call.
pub(super) fn family(
    (body, prompt): (&[u8], &Prompt),
    skip: Option<usize>,
    spans: &[Span],
    key: &HashKey,
) -> u128 {
    let mut tools: Vec<&[u8]> = Vec::new();
    let mut system: Vec<&[u8]> = Vec::new();
    let before = prompt.segments.iter().enumerate();
    let before = before.filter(|(index, _)| Some(*index) != skip);
    for (index, segment) in before.filter(|(_, s)| s.section != Section::Messages) {
        let parts = match segment.section {
            Section::Tools => &mut tools,
            Section::System | Section::Messages => &mut system,
        };
        let whole = segment.text.as_ref().unwrap_or(&segment.range);
        let mut from = whole.start;
        for span in spans.iter().filter(|span| span.segment == index) {
            parts.push(body.get(from..span.range.start).unwrap_or_default());
            from = span.range.end;
        }
        parts.push(body.get(from..whole.end).unwrap_or_default());
    }
    tools.sort_unstable();
    tools.append(&mut system);
    key.hash(&tools)
}

/// Providers that document the key. The backend of `ChatGPT` refuses what it does not know.
fn takes_key(call: &Markable<'_>, host: &str) -> bool {
    match (call.provider, call.api) {
        (Provider::OpenAi, Api::ChatCompletions | Api::Responses) => host.ends_with("openai.com"),
        (Provider::Mistral | Provider::Fireworks, Api::ChatCompletions) => true,
        _ => false,
    }
}

/// Takes the order of providers out; what it restricts the call to stays.
fn unordered(body: &[u8], provider: &Range<usize>) -> Option<Edit> {
    let members = json::members(body, provider.clone()).ok()?;
    let last = |name: &str| members.iter().rev().find(|member| member.is(body, name));
    let order = last("order")?;
    let is_only = last("allow_fallbacks").is_some_and(|member| member.value.kind == Kind::False);
    let (range, replacement) = if is_only && last("only").is_none() {
        (order.key.clone(), b"only".to_vec())
    } else {
        let member = order.key.start.saturating_sub(1)..order.value.range.end;
        (with_comma(body, member), Vec::new())
    };
    Some(Edit {
        range,
        replacement,
        rule: PROVIDER_ORDER.into(),
    })
}

/// Breakpoints of a request.
const BREAKPOINTS_MAX: usize = 4;
/// Positions that a breakpoint looks back, its own included.
const LOOK_BACK: usize = 20;
/// The rule that sets breakpoints, in records and among the values whose effect is measured.
pub const BREAKPOINT: &str = "cache-breakpoint";
const CACHE_KEY: &str = "prompt-cache-key";
const PROVIDER_ORDER: &str = "provider-order";
