//! Fingerprints of a prompt: keyed hashes that say whether two prompts begin alike, without a word
//! of either.
//!
//! They are blind to what providers are blind to: cache markers, and whether a content is a string
//! or a block of text. `SipHash` is a keyed function made for short inputs that others choose; who
//! does not have the key can't test a guess against a stored fingerprint.

use std::hash::Hasher as _;
use std::ops::Range;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::{Message, Prompt, Role, Section, Segment};

/// The hash of a prefix of a prompt, or of a history.
pub type Fingerprint = u128;

/// The key of all fingerprints of an installation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 16]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)")
    }
}

impl HashKey {
    /// From secret bytes.
    #[must_use]
    pub const fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// The hash of `parts`, each told apart from its neighbours.
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut hasher = Hasher::new(*self);
        for part in parts {
            hasher.part(part);
        }
        hasher.finish()
    }
}

impl Prompt {
    /// For each segment, the fingerprint of the prompt up to its end.
    #[must_use]
    pub fn fingerprints(&self, body: &[u8], key: &HashKey) -> Vec<Fingerprint> {
        let mut prefix: Fingerprint = 0;
        let each = self.segments.iter().map(|segment| {
            let mut hasher = Hasher::new(*key);
            hasher.part(&prefix.to_le_bytes());
            hasher.part(&[section_tag(segment)]);
            hasher.segment(body, segment);
            prefix = hasher.finish();
            prefix
        });
        each.collect()
    }

    /// The fingerprint of tools and system prompt to the byte, markers and all, but for the segment
    /// `skip`. `of` tells apart what is no part of them.
    pub(crate) fn head(
        &self,
        body: &[u8],
        skip: Option<usize>,
        key: &HashKey,
        of: &[&[u8]],
    ) -> Fingerprint {
        let mut hasher = Hasher::new(*key);
        of.iter().for_each(|part| hasher.part(part));
        let segments = self.segments.iter().enumerate();
        for (index, segment) in segments.take_while(|(_, s)| s.section != Section::Messages) {
            hasher.part(&[section_tag(segment)]);
            if Some(index) != skip {
                hasher.part(body.get(segment.range.clone()).unwrap_or_default());
            }
        }
        hasher.finish()
    }

    /// For each message, the fingerprint of the messages up to its end; `start` stands for what the
    /// history belongs to. System prompt and tools are no part of it, nor system messages that come
    /// before all others.
    #[must_use]
    pub fn histories(&self, body: &[u8], key: &HashKey, start: Fingerprint) -> Vec<Fingerprint> {
        let (mut prefix, mut leads) = (start, true);
        let each = self.messages.iter().map(|message| {
            leads &= message.role == Role::System;
            if leads {
                return prefix;
            }
            let mut hasher = Hasher::new(*key);
            hasher.part(&prefix.to_le_bytes());
            hasher.message(body, self, message);
            prefix = hasher.finish();
            prefix
        });
        each.collect()
    }
}

impl Segment {
    /// What it says, in pieces: without markers, and the same whether a text is a string or a block.
    pub(crate) fn said<'a>(&self, body: &'a [u8]) -> Vec<&'a [u8]> {
        let get = |range: Range<usize>| body.get(range).unwrap_or_default();
        if let (Some(text), true) = (&self.text, self.plain) {
            return vec![get(text.clone())];
        }
        let mut from = self.range.start;
        let mut pieces = Vec::new();
        for marker in self.marked() {
            pieces.push(get(from..marker.start));
            from = marker.end;
        }
        pieces.push(get(from..self.range.end));
        pieces
    }

    /// Where markers are in it, in order: what is no part of the prompt.
    pub(crate) fn marked(&self) -> Vec<Range<usize>> {
        let own = &self.range;
        let members = self.markers().map(|marker| marker.member.clone());
        let inside = members.filter(|member| member.start >= own.start && member.end <= own.end);
        let mut inside: Vec<_> = inside.collect();
        inside.sort_unstable_by_key(|member| member.start);
        // Of two neighbours both may have taken the comma between them.
        let mut from = own.start;
        for member in &mut inside {
            member.start = member.start.max(from);
            from = member.end;
        }
        inside
    }
}

const fn section_tag(segment: &Segment) -> u8 {
    match segment.section {
        Section::Tools => b't',
        Section::System => b's',
        Section::Messages => b'm',
    }
}

struct Hasher(SipHasher13);

impl Hasher {
    fn new(key: HashKey) -> Self {
        Self(SipHasher13::new_with_key(&key.0))
    }

    /// A part and its length.
    fn part(&mut self, bytes: &[u8]) {
        self.joined(&[bytes]);
    }

    /// A part that is in several places.
    fn joined(&mut self, pieces: &[&[u8]]) {
        let length = pieces.iter().map(|piece| piece.len());
        let length = length.fold(0, usize::saturating_add);
        self.0.write_u64(u64::try_from(length).unwrap_or(u64::MAX));
        for piece in pieces {
            self.0.write(piece);
        }
    }

    fn segment(&mut self, body: &[u8], segment: &Segment) {
        self.joined(&segment.said(body));
    }

    /// A message: its blocks, and what is beside its content, such as its role and calls of tools.
    fn message(&mut self, body: &[u8], prompt: &Prompt, message: &Message) {
        let get = |range: Range<usize>| body.get(range).unwrap_or_default();
        let segments = prompt.segments_of(message);
        match &message.content {
            Some(content) if !segments.is_empty() => {
                self.part(message.role.as_str().as_bytes());
                if !message.plain {
                    self.part(get(message.range.start..content.start));
                    self.part(get(content.end..message.range.end));
                }
                for segment in segments {
                    self.segment(body, segment);
                }
            }
            _ => self.part(get(message.range.clone())),
        }
    }

    fn finish(self) -> Fingerprint {
        self.0.finish128().as_u128()
    }
}
