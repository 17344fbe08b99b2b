//! A prompt as a cache sees it, in hashes and lengths: enough to say where two prompts part, and to
//! replay the rules of a provider, without a word of either.

use std::ops::Range;

use crate::edit::Edit;
use crate::prompt::{HashKey, Lifetime, Prompt, Section, Segment, SegmentKind, lifetime};

/// A prompt in hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// What pays, and where: the keyed hash of the credential, and the host.
    pub account: u64,
    /// The host.
    pub route: u64,
    /// The model.
    pub model: u64,
    /// `prompt_cache_key`.
    pub cache_key: u64,
    /// The parameters that a cache depends on, as far as they are set.
    parameters: Vec<Parameter>,
    /// The prompt in cache order; at most [`BLOCKS_MAX`] of its segments.
    pub(super) blocks: Vec<Block>,
    /// Hashes of pieces of the blocks, at most [`PIECES_MAX`] in all.
    pieces: Vec<u32>,
}

/// A segment of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it says.
    pub(super) digest: u64,
    pub(super) section: Section,
    /// The message that it is in, and which of its blocks it is; or its place in its section.
    place: (u32, u32),
    /// All of it.
    pub(super) bytes: u32,
    /// From its start to where its text starts, or 0.
    text_at: u32,
    /// Neighbours in a run count as one position in a look-back.
    pub(super) run: Run,
    pub(super) breakpoint: Option<Lifetime>,
    /// Its first piece, and how many bytes each has.
    pieces: (u32, u32),
}

/// What a block is in a run of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Alone,
    ToolUse,
    ToolResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parameter {
    name: &'static str,
    /// What is lost when it changes: this section and what comes after it.
    from: Section,
    hash: u64,
}

/// Where two prompts part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The section that it is in.
    pub section: Section,
    /// The segment, by its index in the prompt.
    pub segment: usize,
    /// A short piece of that segment in which the first other byte is, from the segment's start.
    pub bytes: Range<usize>,
    /// In words: `system[0]+128`, `messages[4][1]+0`; the number behind the plus sign counts the
    /// bytes of the text as JSON, or of the whole segment where that is no text.
    pub place: String,
}

impl Sketch {
    /// Of `body`, whose prompt is `prompt`.
    #[must_use]
    pub fn new(body: &[u8], prompt: &Prompt, key: &HashKey) -> Self {
        let mut sketch = Self::outline(body, prompt, key);
        for (segment, at) in prompt.segments.iter().zip(0..sketch.blocks.len()) {
            let pieces = sketch.cut(body.get(segment.range.clone()).unwrap_or_default(), key);
            if let Some(block) = sketch.blocks.get_mut(at) {
                block.pieces = pieces;
            }
        }
        sketch
    }

    /// The same without the pieces of its blocks: enough to replay a cache, and not to say where in
    /// a block two prompts part.
    #[must_use]
    pub fn outline(body: &[u8], prompt: &Prompt, key: &HashKey) -> Self {
        let mut sketch = Self {
            parameters: parameters(body, prompt, key),
            cache_key: prompt
                .cache_key
                .clone()
                .map_or(0, |range| short(key, body.get(range).unwrap_or_default())),
            ..Self::default()
        };
        let seed = short(key, DIGEST_SEED);
        let mut place = (0, 0);
        let mut last = None;
        for segment in prompt.segments.iter().take(BLOCKS_MAX) {
            place = next_place(place, last, segment);
            last = Some(segment);
            let block = Block {
                digest: digest(seed, body, segment),
                section: segment.section,
                place,
                bytes: length(segment.range.len()),
                text_at: segment.text.as_ref().map_or(0, |text| {
                    let start = text.start.saturating_add(1);
                    length(start.saturating_sub(segment.range.start))
                }),
                run: match segment.kind {
                    SegmentKind::ToolUse => Run::ToolUse,
                    SegmentKind::ToolResult => Run::ToolResult,
                    _ => Run::Alone,
                },
                breakpoint: segment.breakpoint(),
                pieces: (0, 0),
            };
            sketch.blocks.push(block);
        }
        if let (Some(automatic), Some(last)) = (&prompt.automatic, sketch.blocks.last_mut()) {
            last.breakpoint = last.breakpoint.or(Some(automatic.lifetime));
        }
        sketch
    }

    /// The outline of the prompt with breakpoints added, of which this is the sketch: what
    /// [`Self::outline`] gives of a body with those edits made. None, where they are other edits than
    /// markers that become the last member of a block.
    #[must_use]
    pub fn marked(&self, body: &[u8], prompt: &Prompt, edits: &[Edit]) -> Option<Self> {
        let mut outline = Self {
            parameters: self.parameters.clone(),
            blocks: self.blocks.clone(),
            pieces: Vec::new(),
            ..*self
        };
        for block in &mut outline.blocks {
            block.pieces = (0, 0);
        }
        for edit in edits {
            let lifetime = marker(body, edit)?;
            let at = edit.range.start.checked_add(1)?;
            let mut segments = prompt.segments.iter();
            let marked = segments.position(|segment| segment.range.end == at)?;
            if let Some(block) = outline.blocks.get_mut(marked) {
                block.breakpoint = Some(lifetime);
                block.bytes = block.bytes.saturating_add(length(edit.replacement.len()));
            }
        }
        Some(outline)
    }

    /// Leaves out what a segment says, since the provider takes it out before it looks at the prompt.
    pub fn take_out(&mut self, segment: usize) {
        if let Some(block) = self.blocks.get_mut(segment) {
            block.digest = 0;
            block.bytes = 0;
        }
    }

    /// Whether it has any breakpoint.
    #[must_use]
    pub fn has_breakpoints(&self) -> bool {
        self.blocks.iter().any(|block| block.breakpoint.is_some())
    }

    /// Where this prompt parts from `earlier`; none where it begins with all of that.
    #[must_use]
    pub fn parts_from(&self, earlier: &Self) -> Option<Parting> {
        let same = |(ours, theirs): &(&Block, &Block)| ours.digest == theirs.digest;
        let index = self
            .blocks
            .iter()
            .zip(&earlier.blocks)
            .take_while(same)
            .count();
        let theirs = earlier.blocks.get(index)?;
        let Some(ours) = self.blocks.get(index) else {
            // It ends before the other does: that is where they part.
            let last = self.blocks.last()?;
            let end = usize::try_from(last.bytes).unwrap_or(usize::MAX);
            return Some(last.parting(index.saturating_sub(1), end..end));
        };
        if ours.section != theirs.section {
            // One has more of a section than the other: what is too much or missing is there.
            let of = if ours.section < theirs.section {
                ours
            } else {
                theirs
            };
            return Some(of.parting(index, 0..0));
        }
        Some(ours.parting(index, self.first_other_piece(ours, earlier, theirs)))
    }

    /// The parameter that changed since `earlier` and costs the most, and from where on.
    pub(super) fn parameter_changed(&self, earlier: &Self) -> Option<(&'static str, Section)> {
        let changed = |of: &Self, other: &Self| {
            let lost = of
                .parameters
                .iter()
                .filter(|one| !other.parameters.contains(one));
            lost.map(|one| (one.name, one.from))
                .min_by_key(|(_, from)| *from)
        };
        let both = changed(self, earlier)
            .into_iter()
            .chain(changed(earlier, self));
        both.min_by_key(|(_, from)| *from)
    }

    /// How many blocks say the same in both, each compared with that in its place.
    pub(super) fn alike(&self, other: &Self) -> usize {
        let messages = |of: &Self| {
            let sections = of.blocks.iter().map(|block| block.section);
            sections
                .take_while(|section| *section != Section::Messages)
                .count()
        };
        let (ours, theirs) = (messages(self), messages(other));
        let equal = |left: &[Block], right: &[Block]| {
            let pairs = left.iter().zip(right);
            pairs
                .filter(|(left, right)| left.digest == right.digest)
                .count()
        };
        let (before, after) = self.blocks.split_at_checked(ours).unwrap_or_default();
        let (other_before, other_after) = other.blocks.split_at_checked(theirs).unwrap_or_default();
        // A conversation is known by its messages: prompts of one family share all the rest.
        equal(after, other_after)
            .saturating_mul(FAMILY_SHARE)
            .saturating_add(equal(before, other_before))
    }

    /// Whether the first message says the same, or any other in its place.
    pub(super) fn same_conversation(&self, other: &Self) -> bool {
        self.alike(other) >= FAMILY_SHARE
    }

    /// Bytes of the prompt, and of what stands before its messages.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let mut all = (0_u64, 0_u64);
        for block in &self.blocks {
            all.0 = all.0.saturating_add(u64::from(block.bytes));
            if block.section != Section::Messages {
                all.1 = all.1.saturating_add(u64::from(block.bytes));
            }
        }
        all
    }

    /// For each block, the hash of all that the cache of a provider depends on up to its end.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = u64> {
        let mut prefix = mix(
            mix(mix(self.account, self.route), self.model),
            self.cache_key,
        );
        self.blocks.iter().map(move |block| {
            for parameter in &self.parameters {
                if parameter.from <= block.section {
                    prefix = mix(prefix, parameter.hash);
                }
            }
            prefix = mix(prefix, block.digest);
            prefix
        })
    }

    /// Hashes the pieces of a block: where the first is, and how long each.
    fn cut(&mut self, bytes: &[u8], key: &HashKey) -> (u32, u32) {
        let first = self.pieces.len();
        let size = PIECE_BYTES.max(bytes.len().div_ceil(PIECES_OF_BLOCK_MAX));
        if PIECES_MAX.saturating_sub(first) >= bytes.len().div_ceil(size) {
            let seed = short(key, PIECE_SEED);
            let pieces = bytes
                .chunks(size)
                .map(|piece| folded(of_piece(seed, piece)));
            self.pieces.extend(pieces);
        }
        (length(first), length(size))
    }

    fn first_other_piece(&self, ours: &Block, earlier: &Self, theirs: &Block) -> Range<usize> {
        let (own, other) = (self.pieces_of(ours), earlier.pieces_of(theirs));
        let size = usize::try_from(ours.pieces.1).unwrap_or(0);
        if ours.pieces.1 != theirs.pieces.1 {
            return 0..size;
        }
        let same = own
            .iter()
            .zip(other)
            .take_while(|(own, other)| own == other)
            .count();
        let start = same.saturating_mul(size);
        let end = usize::try_from(ours.bytes).unwrap_or(usize::MAX);
        start.min(end)..start.saturating_add(size).min(end)
    }

    fn pieces_of(&self, block: &Block) -> &[u32] {
        let (first, size) = block.pieces;
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let count = block.bytes.div_ceil(size.max(1));
        let end = first.saturating_add(usize::try_from(count).unwrap_or(0));
        self.pieces.get(first..end).unwrap_or_default()
    }
}

impl Block {
    fn parting(&self, segment: usize, bytes: Range<usize>) -> Parting {
        let text_at = usize::try_from(self.text_at).unwrap_or(0);
        let offset = bytes.start.saturating_sub(text_at);
        let (first, second) = self.place;
        let place = match self.section {
            Section::Tools => format!("tools[{first}]+{offset}"),
            Section::System => format!("system[{first}]+{offset}"),
            Section::Messages => format!("messages[{first}][{second}]+{offset}"),
        };
        Parting {
            section: self.section,
            segment,
            bytes,
            place,
        }
    }
}

/// The lifetime of the marker that an edit adds behind the last member of an object; none, where it is
/// something else. Behind a blank the marker takes that with it.
fn marker(body: &[u8], edit: &Edit) -> Option<Lifetime> {
    let at = edit.range.start;
    let value = edit.replacement.strip_prefix(br#","cache_control":"#)?;
    let is_last = edit.range.is_empty() && body.get(at) == Some(&b'}');
    let before = body.get(at.checked_sub(1)?)?;
    let is_behind_member = !before.is_ascii_whitespace() && *before != b'{';
    (is_last && is_behind_member).then(|| lifetime(value))
}

/// Tools and the system prompt are counted through, messages by message and block.
fn next_place(place: (u32, u32), last: Option<&Segment>, segment: &Segment) -> (u32, u32) {
    let (first, second) = place;
    match last {
        Some(last) if last.section == segment.section => {
            if segment.section == Section::Messages {
                if last.message == segment.message {
                    (first, second.saturating_add(1))
                } else {
                    (first.saturating_add(1), 0)
                }
            } else {
                (first.saturating_add(1), 0)
            }
        }
        _ => (0, 0),
    }
}

fn parameters(body: &[u8], prompt: &Prompt, key: &HashKey) -> Vec<Parameter> {
    let known = prompt.others.iter().filter_map(|member| {
        let mut parameters = PARAMETERS.iter();
        let (name, from) = parameters.find(|(name, _)| member.is(body, name))?;
        let value = body.get(member.value.range.clone()).unwrap_or_default();
        Some(Parameter {
            name,
            from: *from,
            hash: short(key, value),
        })
    });
    let mut found: Vec<Parameter> = known.collect();
    if prompt
        .segments
        .iter()
        .any(|segment| segment.kind == SegmentKind::Media)
    {
        found.push(Parameter {
            name: "images",
            from: Section::Messages,
            hash: 1,
        });
    }
    found
}

fn short(key: &HashKey, bytes: &[u8]) -> u64 {
    low(key.hash(&[bytes]))
}

/// The hash of what a segment says, wherever in its section it stands.
fn digest(seed: u64, body: &[u8], segment: &Segment) -> u64 {
    let seed = mix(seed, section_number(segment.section));
    match segment.said(body)[..] {
        [said] => of_piece(seed, said),
        // Where a marker stood is no part of it.
        ref pieces => of_piece(seed, &pieces.concat()),
    }
}

const fn section_number(section: Section) -> u64 {
    match section {
        Section::Tools => 1,
        Section::System => 2,
        Section::Messages => 3,
    }
}

/// A hash of some bytes under a seed that nobody else has, in a third of what a hash costs that is
/// to be written down. It tells pieces of two prompts apart in memory and never leaves it, so that it
/// need not stand up to who can choose the seed.
fn of_piece(seed: u64, piece: &[u8]) -> u64 {
    let (words, rest) = piece.as_chunks::<8>();
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word).wrapping_mul(u128::from(FOLD));
        low(product) ^ low(product >> 64)
    };
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let mut hash = words.fold(seed ^ FOLD, fold);
    if !rest.is_empty() {
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        hash = fold(hash, u64::from_le_bytes(last));
    }
    // The length tells a short rest from one that ends in zeros.
    fold(hash, u64::from(length(piece.len())) ^ seed)
}

fn low(hash: u128) -> u64 {
    let bytes = hash.to_le_bytes();
    let mut half = [0; 8];
    half.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    u64::from_le_bytes(half)
}

fn folded(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)
}

/// Chains two hashes, both of which are keyed already.
fn mix(left: u64, right: u64) -> u64 {
    let mixed = left.rotate_left(23) ^ right;
    mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (mixed >> 29)
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What the seed of the blocks' hashes is derived from the key by.
const DIGEST_SEED: &[u8] = b"digests";
/// What the seed of the pieces' hashes is derived from the key by.
const PIECE_SEED: &[u8] = b"pieces";
/// An odd number whose bits are even in number and in no order (the golden ratio).
const FOLD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Segments of one prompt that are looked at; agents stay below a thousand.
pub const BLOCKS_MAX: usize = 4096;
/// Hashes of pieces of one prompt: 16 KiB.
pub const PIECES_MAX: usize = 4096;
/// Pieces that one block is cut into at most.
const PIECES_OF_BLOCK_MAX: usize = 512;
/// Bytes of a piece, where the block is not too long for that.
const PIECE_BYTES: usize = 32;
/// How many blocks before the messages weigh as much as one in them.
const FAMILY_SHARE: usize = 1 << 16;

/// Members of a body that a cache depends on, and from where on (facts of the providers' pages on
/// prompt caching). What only some models lose is counted as lost.
const PARAMETERS: [(&str, Section); 11] = [
    ("thinking", Section::Tools),
    ("output_config", Section::Tools),
    ("reasoning", Section::Tools),
    ("reasoning_effort", Section::Tools),
    ("verbosity", Section::Tools),
    ("response_format", Section::Tools),
    ("text", Section::Tools),
    ("service_tier", Section::Tools),
    ("speed", Section::System),
    ("tool_choice", Section::Messages),
    ("context_management", Section::Messages),
];
