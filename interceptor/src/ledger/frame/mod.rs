//! One entry of the journal as bytes: a mark, a length, a checksum, and MessagePack with names.
//!
//! MessagePack, because JSON's escapes made every text of a record a loop over its bytes; with
//! names, so that a journal of another version is read. The mark holds a byte that UTF-8 never has,
//! so no text inside an entry can be taken for the start of one; a number can, and then has a wrong
//! checksum. After a damaged entry, reading goes on at the next mark.

use std::collections::HashMap;

use flate2::Crc;
use serde::{Deserialize, Serialize};
use weir_core::money::Money;

use super::record::{Bypass, Explained, Record};

/// What a journal holds. Like `Record`, a stored format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// First in each journal: proves at opening that the journal can be written.
    Opened { pid: u32, version: String },
    /// A call is about to be sent. The record is what is known so far.
    Admitted {
        reserved: Money,
        record: Box<Record>,
    },
    /// A call ended.
    Recorded(Box<Record>),
    /// Something was not inspected.
    Bypassed(Bypass),
    /// What was found out about a call after its record, which comes before this, was written.
    Explained { id: String, explained: Explained },
}

/// `Entry`, borrowed for writing.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EntryRef<'a> {
    Opened {
        pid: u32,
        version: &'a str,
    },
    Admitted {
        reserved: Money,
        record: &'a Record,
    },
    Recorded(&'a Record),
    Bypassed(&'a Bypass),
    Explained {
        id: &'a str,
        explained: &'a Explained,
    },
}

/// What the start of some bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A whole entry, of `length` bytes.
    Entry { entry: Entry, length: usize },
    /// `length` bytes that are no entry, or one that this version does not know.
    Damaged { length: usize },
    /// Not enough bytes to tell; at the end of a journal, a torn write.
    Incomplete,
}

/// Puts what was found out about calls into their records, where both are among `entries`.
pub(super) fn merge(entries: &mut Vec<Entry>) {
    let mut found: HashMap<String, Explained> = entries
        .extract_if(.., |entry| matches!(entry, Entry::Explained { .. }))
        .filter_map(|entry| match entry {
            Entry::Explained { id, explained } => Some((id, explained)),
            Entry::Opened { .. }
            | Entry::Admitted { .. }
            | Entry::Recorded(_)
            | Entry::Bypassed(_) => None,
        })
        .collect();
    if found.is_empty() {
        return;
    }
    for entry in entries.iter_mut() {
        if let Entry::Recorded(record) = entry
            && let Some(explained) = found.remove(&record.id)
        {
            record.explain(explained);
        }
    }
    let of_earlier = found.into_iter();
    entries.extend(of_earlier.map(|(id, explained)| Entry::Explained { id, explained }));
}

/// The bytes of an entry.
pub(super) fn encode(entry: EntryRef<'_>) -> Vec<u8> {
    let frame = encode_unbounded(entry);
    if frame.len() <= FRAME_BYTES_MAX {
        return frame;
    }
    // Some text that a client chose is absurdly long. Its start is enough.
    match entry {
        // Nothing in these comes from a client.
        EntryRef::Opened { .. } | EntryRef::Explained { .. } => frame,
        EntryRef::Admitted { reserved, record } => encode_unbounded(EntryRef::Admitted {
            reserved,
            record: &clipped(record),
        }),
        EntryRef::Recorded(record) => encode_unbounded(EntryRef::Recorded(&clipped(record))),
        EntryRef::Bypassed(bypass) => {
            let mut bypass = bypass.clone();
            [
                &mut bypass.program,
                &mut bypass.host,
                &mut bypass.destination,
                &mut bypass.reason,
            ]
            .into_iter()
            .for_each(clip);
            encode_unbounded(EntryRef::Bypassed(&bypass))
        }
    }
}

/// The entry that `bytes` start with.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let Some((mark, rest)) = bytes.split_first_chunk::<4>() else {
        return Decoded::Incomplete;
    };
    if *mark != MARK {
        return damaged(bytes);
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Decoded::Incomplete;
    };
    let Some((checksum, rest)) = rest.split_first_chunk::<4>() else {
        return Decoded::Incomplete;
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return damaged(bytes);
    }
    let Some(body) = rest.get(..length) else {
        return Decoded::Incomplete;
    };
    if checksum_of(body) != u32::from_le_bytes(*checksum) {
        return damaged(bytes);
    }
    match rmp_serde::from_slice(body) {
        Ok(entry) => Decoded::Entry {
            entry,
            length: HEAD_BYTES + length,
        },
        Err(_) => Decoded::Damaged {
            length: HEAD_BYTES + length,
        },
    }
}

fn encode_unbounded(entry: EntryRef<'_>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES_USUAL);
    frame.extend_from_slice(&[0; HEAD_BYTES]);
    // Plain structs of texts and numbers: writing them to memory cannot fail.
    if rmp_serde::encode::write_named(&mut frame, &entry).is_err() {
        return Vec::new();
    }
    let (length, checksum) = {
        let body = frame.get(HEAD_BYTES..).unwrap_or_default();
        (
            u32::try_from(body.len()).unwrap_or(u32::MAX),
            checksum_of(body),
        )
    };
    let head = [MARK, length.to_le_bytes(), checksum.to_le_bytes()];
    for (to, from) in frame.iter_mut().zip(head.as_flattened()) {
        *to = *from;
    }
    frame
}

/// Where in `bytes`, which start with something damaged, the next entry may start.
pub(super) fn next_mark(bytes: &[u8]) -> Option<usize> {
    Some(memchr::memmem::find(bytes.get(1..)?, &MARK)? + 1)
}

/// Everything up to the next mark is damaged; or everything, but for what may be half a mark.
fn damaged(bytes: &[u8]) -> Decoded {
    let unmarked = bytes.len().saturating_sub(MARK.len() - 1).max(1);
    Decoded::Damaged {
        length: next_mark(bytes).unwrap_or(unmarked),
    }
}

fn checksum_of(body: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(body);
    crc.sum()
}

fn clipped(record: &Record) -> Record {
    let mut record = record.clone();
    record.edits.truncate(LIST_ITEMS_KEPT);
    record.reasons.truncate(LIST_ITEMS_KEPT);
    record
        .edits
        .iter_mut()
        .for_each(|edit| clip(&mut edit.rule));
    record.reasons.iter_mut().for_each(clip);
    let identity = &mut record.identity;
    for optional in [
        &mut identity.program,
        &mut identity.user,
        &mut identity.cgroup,
        &mut identity.container,
        &mut identity.key_hash,
        &mut identity.key_tail,
        &mut identity.key_kind,
        &mut record.session,
        &mut record.model_requested,
        &mut record.model_answered,
        &mut record.cache_outcome,
    ] {
        optional.iter_mut().for_each(clip);
    }
    for text in [
        &mut record.id,
        &mut record.destination,
        &mut record.host,
        &mut record.provider,
        &mut record.api,
        &mut record.method,
        &mut record.path_class,
        &mut record.instance,
    ] {
        clip(text);
    }
    record
}

fn clip(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_KEPT));
}

const MARK: [u8; 4] = [0xF7, b'W', b'R', 0x02];
const HEAD_BYTES: usize = 12;
const FRAME_BYTES_USUAL: usize = 1536;
/// Most bytes of one entry, so that a damaged length cannot swallow the journal. The clipped texts
/// of a record stay far below it.
pub(super) const FRAME_BYTES_MAX: usize = 128 * 1024;
const TEXT_BYTES_KEPT: usize = 256;
const LIST_ITEMS_KEPT: usize = 32;

#[cfg(test)]
mod tests;
