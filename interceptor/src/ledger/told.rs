//! Records on their way out: into the journal, and to whoever follows them as they come.
//!
//! What a call's cache did may be found out only after its record was written. That is an entry of
//! its own, which the writer puts into the record, or into the row that the record has become.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::frame::{Entry, EntryRef, encode};
use super::journal::Handed;
use super::record::{Explained, Record};
use super::{Ledger, new_id};

/// A record that was written down, as long as it is not published.
#[derive(Debug)]
pub struct Journaled {
    id: String,
    /// None, where nobody follows.
    record: Option<Box<Record>>,
}

impl Journaled {
    /// Whether anybody follows.
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        self.record.is_some()
    }
}

impl Ledger {
    /// Writes the record of an exchange.
    ///
    /// One `write(2)`; never fails, see `health`.
    pub fn record(&self, record: Record) {
        let journaled = self.write_down(record);
        self.publish(journaled);
    }

    /// The same, before it is known whether anything is to be added: published when that is known.
    #[must_use]
    pub fn write_down(&self, mut record: Record) -> Journaled {
        self.instance().clone_into(&mut record.instance);
        if record.id.is_empty() {
            record.id = new_id(record.started_unix_ms);
        }
        let is_followed = self.subscribers.receiver_count() > 0;
        let journaled = Journaled {
            id: record.id.clone(),
            record: is_followed.then(|| Box::new(record.clone())),
        };
        let frame = encode(EntryRef::Recorded(&record));
        self.write(frame, Handed::Entry(Entry::Recorded(Box::new(record))));
        journaled
    }

    /// Adds what was found out since to a record. One `write(2)`; never fails, see `health`.
    pub fn explain(&self, journaled: &mut Journaled, explained: Explained) {
        let id = journaled.id.clone();
        let frame = encode(EntryRef::Explained {
            id: &id,
            explained: &explained,
        });
        if let Some(record) = &mut journaled.record {
            record.explain(explained.clone());
        }
        self.write(frame, Handed::Entry(Entry::Explained { id, explained }));
    }

    /// Gives a record to whoever follows.
    pub fn publish(&self, journaled: Journaled) {
        if let Some(record) = journaled.record {
            // That the last one has gone in the meantime is no matter.
            drop(self.subscribers.send(Arc::from(record)));
        }
    }

    /// Every record once nothing is to be added to it, in the order in which the calls ended. A
    /// receiver that falls behind loses the oldest ones.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.subscribers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_core::money::Money;

    use super::super::{Cost, LedgerOptions};
    use super::*;

    const WAIT: Duration = Duration::from_secs(60);
    const COST: Money = Money::from_nanos(3_000);

    fn record(id: &str) -> Record {
        Record {
            id: id.to_owned(),
            cost: Cost::Priced {
                total: COST,
                version: String::new(),
            },
            cache_outcome: Some("write".to_owned()),
            ..Record::default()
        }
    }

    fn explained() -> Explained {
        Explained {
            cache_outcome: Some("hit".to_owned()),
            cost_perfect_cache: Some(Money::from_nanos(1)),
            cache_reason: Some("system_changed".to_owned()),
            cache_where: Some("system[0]+7".to_owned()),
            cache_rule: Some("iso-time".to_owned()),
            missed: Some(Money::from_nanos(2)),
            rewrite_saving: Some(Money::from_nanos(-3)),
        }
    }

    /// What is in the columns, row by row.
    fn rows(options: &LedgerOptions) -> Vec<String> {
        let database = rusqlite::Connection::open(options.database().unwrap()).unwrap();
        let mut select = database
            .prepare(
                "SELECT concat_ws(' ', id, cost_nanos, cache_outcome, cost_perfect_cache_nanos,
                 cache_reason, cache_where, cache_rule, missed_nanos, rewrite_saving_nanos)
                 FROM exchange ORDER BY seq",
            )
            .unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_found_out_later_completes_a_record_that_others_have_counted() {
        let directory = tempfile::tempdir().unwrap();
        let options = LedgerOptions::new(directory.path());
        let ledger = Ledger::open(&options).unwrap();
        let other = Ledger::open(&options).unwrap();
        let mut one = ledger.write_down(record("one"));
        assert!(ledger.flush(WAIT));
        assert_eq!(rows(&options), ["one 3000 write"]);
        assert_eq!(other.poll_others().unwrap().spent.len(), 1);
        ledger.explain(&mut one, explained());
        // This one is complete before it gets into the database.
        let mut two = ledger.write_down(record("two"));
        ledger.explain(&mut two, explained());
        assert!(ledger.flush(WAIT));
        let complete = "3000 hit 1 system_changed system[0]+7 iso-time 2 -3";
        let expected = ["one", "two"].map(|id| format!("{id} {complete}"));
        assert_eq!(rows(&options), expected);
        let spent = other.poll_others().unwrap().spent;
        let spent: Vec<(&str, Money)> = spent
            .iter()
            .map(|spend| (spend.id.as_str(), spend.amount))
            .collect();
        assert_eq!(spent, [("two", COST)], "the first was counted before");
    }

    #[test]
    fn followers_get_a_record_once_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
        let mut followed = ledger.subscribe();
        let mut journaled = ledger.write_down(record("one"));
        assert!(followed.try_recv().is_err(), "more is to come");
        ledger.explain(&mut journaled, explained());
        ledger.publish(journaled);
        let received = followed.try_recv().unwrap();
        let mut expected = record("one");
        expected.instance = ledger.instance().to_owned();
        expected.explain(explained());
        assert_eq!(*received, expected);
        assert!(followed.try_recv().is_err());
    }
}
