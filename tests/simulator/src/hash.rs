//! Fingerprints of prompt prefixes: each is the hash of the one before it and of what follows.

use std::hash::{DefaultHasher, Hasher};

/// The fingerprint of a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(u64);

impl Prefix {
    /// The prefix extended by `parts`, each set off from the next.
    pub(crate) fn then(self, parts: &[&str]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        Self(hasher.finish())
    }

    /// As a number.
    pub(crate) const fn value(self) -> u64 {
        self.0
    }

    /// The prefix extended by `bytes`.
    pub(crate) fn then_bytes(self, bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher.write(bytes);
        Self(hasher.finish())
    }
}

/// Sixteen hexadecimal digits.
impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
