//! Which programs refuse our certificate for which hosts.
//!
//! A program that pins its provider's certificate, or brings its own roots, can't be inspected. The
//! first refusal costs it one failed connection; from then on it is passed through, or refused,
//! for a while. An alert says plainly that the CA is not trusted. A bare close during the handshake
//! may also be a client that changed its mind: that counts from the second time in a row, and of a program
//! that was seen to trust the CA not at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Programs and hosts remembered; the entry that expires first makes room.
const ENTRIES_MAX: usize = 4096;
/// After this time the program is tried again: it may have been restarted with the CA.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
const CLOSES_MAX: u32 = 2;

type Key = (Arc<str>, Arc<str>);

/// How a client ended a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// By an alert that speaks of the certificate (RFC 8446, section 6.2).
    Alert,
    /// By closing the connection.
    Close,
}

impl Refusal {
    /// What a failed handshake says about trust, if anything.
    pub(crate) fn of(error: &std::io::Error) -> Option<Self> {
        use rustls::AlertDescription as Alert;
        use std::io::ErrorKind;
        let tls = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>());
        match (tls, error.kind()) {
            (
                Some(rustls::Error::AlertReceived(
                    Alert::UnknownCA
                    | Alert::BadCertificate
                    | Alert::CertificateUnknown
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateExpired
                    | Alert::AccessDenied
                    | Alert::DecryptError
                    | Alert::InternalError
                    | Alert::HandshakeFailure,
                )),
                _,
            ) => Some(Self::Alert),
            (
                None,
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe,
            ) => Some(Self::Close),
            _ => None,
        }
    }
}

/// What the last handshakes of a program with a host said.
#[derive(Clone, Copy)]
enum Seen {
    /// That it trusts the CA.
    Trusts,
    /// Nothing certain: so many ended without a word in a row.
    Closed(u32),
    /// That it does not.
    Rejects,
}

struct Entry {
    seen: Seen,
    until: Instant,
}

/// The memory of refusals.
#[derive(Default)]
pub(crate) struct Rejections {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Rejections {
    /// Whether `program` is known to refuse our certificate for `host`.
    pub(crate) fn contains(&self, program: &Arc<str>, host: &Arc<str>, now: Instant) -> bool {
        let key = (Arc::clone(program), Arc::clone(host));
        self.lock()
            .get(&key)
            .is_some_and(|entry| matches!(entry.seen, Seen::Rejects) && now < entry.until)
    }

    /// Notes a failed handshake; true when the program counts as refusing from now on.
    pub(crate) fn failed(
        &self,
        program: &Arc<str>,
        host: &Arc<str>,
        refusal: Refusal,
        now: Instant,
    ) -> bool {
        let mut entries = self.lock();
        let key = (Arc::clone(program), Arc::clone(host));
        let before = entries.get(&key).filter(|entry| now < entry.until);
        let seen = match (refusal, before.map(|entry| entry.seen)) {
            (Refusal::Alert, _) | (Refusal::Close, Some(Seen::Rejects)) => Seen::Rejects,
            (Refusal::Close, Some(Seen::Trusts)) => return false,
            (Refusal::Close, Some(Seen::Closed(closes)))
                if closes.saturating_add(1) < CLOSES_MAX =>
            {
                Seen::Closed(closes.saturating_add(1))
            }
            (Refusal::Close, Some(Seen::Closed(_))) => Seen::Rejects,
            (Refusal::Close, None) => Seen::Closed(1),
        };
        note(&mut entries, key, seen, now);
        matches!(seen, Seen::Rejects)
    }

    /// Notes a handshake that succeeded.
    pub(crate) fn succeeded(&self, program: &Arc<str>, host: &Arc<str>, now: Instant) {
        let key = (Arc::clone(program), Arc::clone(host));
        note(&mut self.lock(), key, Seen::Trusts, now);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is remembered of a program and a host; what expires first makes room.
fn note(entries: &mut HashMap<Key, Entry>, key: Key, seen: Seen, now: Instant) {
    if entries.len() >= ENTRIES_MAX && !entries.contains_key(&key) {
        let first = entries.iter().min_by_key(|(_, entry)| entry.until);
        let first = first.map(|(key, _)| key.clone());
        first.and_then(|first| entries.remove(&first));
    }
    let until = now + REMEMBERED;
    entries.insert(key, Entry { seen, until });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Arc<str>, Arc<str>) {
        (Arc::from("/usr/bin/agent"), Arc::from("api.anthropic.com"))
    }

    #[test]
    fn an_alert_counts_at_once_and_is_forgotten_after_a_while() {
        let (program, host) = names();
        let (memory, now) = (Rejections::default(), Instant::now());
        assert!(memory.failed(&program, &host, Refusal::Alert, now));
        assert!(memory.contains(&program, &host, now));
        assert!(!memory.contains(&program, &Arc::from("api.openai.com"), now));
        assert!(!memory.contains(&program, &host, now + REMEMBERED));
    }

    #[test]
    fn a_close_counts_from_the_second_in_a_row() {
        let (program, host) = names();
        let (memory, now) = (Rejections::default(), Instant::now());
        assert!(!memory.failed(&program, &host, Refusal::Close, now));
        assert!(memory.failed(&program, &host, Refusal::Close, now));
        assert!(memory.contains(&program, &host, now));
        memory.succeeded(&program, &host, now);
        assert!(!memory.contains(&program, &host, now));
    }

    #[test]
    fn what_trusts_the_ca_may_close_as_often_as_it_likes() {
        let (program, host) = names();
        let (memory, now) = (Rejections::default(), Instant::now());
        memory.succeeded(&program, &host, now);
        for _ in 0..10 {
            assert!(!memory.failed(&program, &host, Refusal::Close, now));
        }
        assert!(!memory.contains(&program, &host, now));
        assert!(memory.failed(&program, &host, Refusal::Alert, now));
        // It was started again without the CA, long after.
        memory.succeeded(&program, &host, now);
        let later = now + REMEMBERED;
        assert!(!memory.failed(&program, &host, Refusal::Close, later));
        assert!(memory.failed(&program, &host, Refusal::Close, later));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (program, now) = (names().0, Instant::now());
        let memory = Rejections::default();
        for number in 0..=ENTRIES_MAX {
            memory.failed(
                &program,
                &Arc::from(format!("h{number}")),
                Refusal::Alert,
                now,
            );
        }
        assert_eq!(memory.lock().len(), ENTRIES_MAX);
    }
}
