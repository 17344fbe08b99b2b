//! What rewriting would do to a request: its segments, the values in them, and the edits.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use weir_core::edit::{self, Edit};
use weir_core::estimate::Ratios;
use weir_core::pricing::PriceTable;
use weir_core::prompt::{self, HashKey, Prompt, Section, Segment};
use weir_core::rewrite::{self, Markable, Plan, Request, RuleSet, Thread, Warmth, Withheld};
use weir_core::volatile::{Rules, Span};

use super::target::Target;
use crate::exchange::{MINIMUM_TOKENS, untouchable};

/// What there is to say of a request.
#[derive(Debug, Default, Serialize)]
pub(super) struct Explained {
    pub(super) host: String,
    pub(super) api: &'static str,
    /// Empty where only the path would tell it, and none was given.
    pub(super) model: String,
    pub(super) bytes: usize,
    /// About how many the prompt has, and how many the provider caches at least.
    pub(super) tokens: u64,
    pub(super) minimum_tokens: u64,
    pub(super) breakpoints: usize,
    pub(super) segments: Vec<Shown>,
    pub(super) spans: Vec<Found>,
    pub(super) edits: Vec<Made>,
    /// Edits that are made only where the bytes before them were sent less than five minutes ago.
    pub(super) edits_if_sent_lately: Vec<Made>,
    /// Why no value is edited.
    pub(super) withheld: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) place: String,
    pub(super) kind: String,
    pub(super) range: Range<usize>,
    pub(super) breakpoint: bool,
    /// Whether it is an agent's own protocol with its provider, which is never touched.
    pub(super) left_alone: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) rule: String,
    pub(super) kind: String,
    pub(super) transform: &'static str,
    pub(super) place: String,
    pub(super) range: Range<usize>,
    pub(super) value: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Made {
    pub(super) rule: String,
    pub(super) range: Range<usize>,
    pub(super) was: String,
    pub(super) replacement: String,
}

/// Explains a request; `rules` are those of the configuration.
pub(super) fn explain(target: &Target, rules: &str, body: &[u8]) -> anyhow::Result<Explained> {
    let prompt = prompt::read(body)?;
    let rules = RuleSet::new(Rules::parse(rules)?, &KEY);
    let places = places(&prompt);
    let untouchable = untouchable(target.provider, body, &prompt);
    let segments = prompt.segments.iter().enumerate().zip(&places);
    let segments = segments.map(|((index, segment), place)| Shown {
        place: place.clone(),
        kind: format!("{:?}", segment.kind).to_lowercase(),
        range: segment.range.clone(),
        breakpoint: segment.breakpoint().is_some(),
        left_alone: untouchable == Some(index),
    });
    let prices = PriceTable::builtin();
    let listing = prices.listing(
        target.provider.priced_as(target.api).as_str(),
        &target.model,
    );
    let estimate = Ratios::default().estimate(&target.host, &target.model, &target.call, None);
    let mut explained = Explained {
        host: target.host.clone(),
        api: target.api.as_str(),
        model: target.model.clone(),
        bytes: body.len(),
        tokens: estimate.expected,
        minimum_tokens: listing.min_cacheable_tokens.unwrap_or(MINIMUM_TOKENS),
        breakpoints: prompt.markers(),
        segments: segments.collect(),
        withheld: Some(Withheld::NothingFound.as_str()),
        ..Explained::default()
    };
    let Some(thread) = Thread::of(&prompt, body, &KEY, &[]) else {
        return Ok(explained);
    };
    // As if it were the first of its conversation: what later ones were given is not known here.
    let first = Thread {
        is_start: true,
        ..thread.clone()
    };
    let request = Request {
        api: target.api,
        model: &target.model,
        body,
        prompt: &prompt,
        thread: &first,
        key: &KEY,
        untouchable,
        head: None,
        held_by_provider: target.call.previous_response,
        begin: true,
        now_s: 0,
    };
    let plan = rewrite::plan(&request, None, &rules, |_| None);
    explained.spans = found(body, &plan.spans, &rules.rules, &places);
    explained.withheld = plan.withheld.map(Withheld::as_str);
    if !rewrite::covers(target.api, body) {
        explained.withheld = Some("api_not_covered");
    } else if estimate.reserved < explained.minimum_tokens {
        explained.withheld = Some("below_minimum");
    } else {
        explained.edit(target, &request, &thread, &plan)?;
    }
    Ok(explained)
}

impl Explained {
    /// Adds the edits, and those of breakpoints and routing.
    fn edit(
        &mut self,
        target: &Target,
        request: &Request<'_>,
        thread: &Thread,
        plan: &Plan,
    ) -> anyhow::Result<()> {
        let minimum_bytes = self.minimum_tokens.saturating_mul(BYTES_PER_TOKEN);
        let markable = |warm| Markable {
            api: request.api,
            provider: target.provider,
            model: &target.model,
            body: request.body,
            prompt: request.prompt,
            thread,
            minimum_bytes: usize::try_from(minimum_bytes).unwrap_or(usize::MAX),
            warm,
            edits: &plan.edits,
        };
        let always = markable(Warmth::default());
        let mut edits = plan.edits.clone();
        let marks = rewrite::breakpoints(&always);
        edits.extend(rewrite::routing(&always, &target.host, &plan.spans, &KEY));
        let warm = Warmth {
            tools: true,
            system: true,
            turn: true,
        };
        let mut lately = rewrite::breakpoints(&markable(warm));
        lately.retain(|edit| !marks.contains(edit));
        edits.extend(marks);
        // That they fit is checked here too, so that nobody is told of edits that never happen.
        edit::apply(request.body, &mut [&edits[..], &lately].concat())?;
        self.edits = made(request.body, edits);
        self.edits_if_sent_lately = made(request.body, lately);
        Ok(())
    }
}

/// Edits in the order of their places.
fn made(body: &[u8], mut edits: Vec<Edit>) -> Vec<Made> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let made = edits.into_iter().map(|edit| Made {
        was: text(body.get(edit.range.clone()).unwrap_or_default()),
        rule: edit.rule.into_owned(),
        range: edit.range,
        replacement: text(&edit.replacement),
    });
    made.collect()
}

/// The values that rules found.
fn found(body: &[u8], spans: &[Span], rules: &Rules, places: &[String]) -> Vec<Found> {
    let found = spans.iter().filter_map(|span| {
        let rule = rules.rule(span.rule)?;
        let value = body.get(span.range.clone())?;
        Some(Found {
            rule: rule.name.clone(),
            kind: rule.kind.clone(),
            transform: rule.transform.as_str(),
            place: places.get(span.segment).cloned().unwrap_or_default(),
            range: span.range.clone(),
            value: String::from_utf8_lossy(value).into_owned(),
        })
    });
    found.collect()
}

/// `system[0]`, `messages[3][1]` and so on, as in reports.
fn places(prompt: &Prompt) -> Vec<String> {
    let mut counts: BTreeMap<(Section, Option<usize>), usize> = BTreeMap::new();
    let leading = |segment: &Segment| segment.section != Section::Messages;
    let first = prompt.segments.iter().find(|segment| !leading(segment));
    let first = first.and_then(|segment| segment.message).unwrap_or(0);
    let place = |segment: &Segment| {
        let of = (
            segment.section,
            segment.message.filter(|_| !leading(segment)),
        );
        let count = counts.entry(of).or_default();
        let index = *count;
        *count += 1;
        match segment.section {
            Section::Tools => format!("tools[{index}]"),
            Section::System => format!("system[{index}]"),
            Section::Messages => {
                let message = segment.message.unwrap_or(0).saturating_sub(first);
                format!("messages[{message}][{index}]")
            }
        }
    };
    prompt.segments.iter().map(place).collect()
}

/// No hash of what is explained is kept.
const KEY: HashKey = HashKey::new([0; 16]);
/// Of prompts, about.
const BYTES_PER_TOKEN: u64 = 4;
