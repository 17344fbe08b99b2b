//! How several processes share the accounts of caps without asking each other for every call.
//!
//! What may be spent of an account in a window stands in a book that all share (`book`). A process,
//! the *holder* of a lease, has the book allow it a total: the most that it itself may have spent
//! and reserved in that window. It decides on its own within that (`slices`), and asks for more
//! before it runs out. At each change of the book
//!
//! ```text
//! sum over holders of max(allowed, spent) <= limit
//! ```
//!
//! The part that is allowed beyond what is needed at once is a sixteenth of what is still free, so it
//! shrinks towards the limit until each decision is one question. All amounts are totals, and
//! questions are numbered, so that lost, late and repeated ones do no harm: a holder never believes
//! to have more than the book says. What is spent reaches the book with the record of the exchange,
//! once for each id.
//!
//! A holder that is silent for [`LEASE_MS`] is given up: its slices return, and what it has in
//! flight, as far as the book knows it, counts as spent. It stops using them by itself after
//! [`USABLE_MS`] of its own clock, however its clock stands; one that runs at half speed or slower
//! would be too late. What it spent and could not tell is counted when it comes. So at any time
//!
//! ```text
//! spent + reserved <= limit + what calls cost beyond their reservation
//!                   + sum over holders given up of the calls that they had admitted, not yet told
//! ```
//!
//! and those cannot be more than what the holder was allowed. One that ends, or whose journal is
//! taken over, has told everything and adds nothing, and so does one that is back in time.
//! `tests/nodes` plays this with everything that can go wrong.
//!
//! Amounts are in the unit of the cap: nano-dollars, tokens or calls.

mod book;
mod slices;

use serde::{Deserialize, Serialize};

pub use book::Book;
pub use slices::{Ask, Sign, Slices};

/// An amount that an exchange takes out of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The account, named so that every process names it alike.
    pub account: String,
    /// Where in time it counts: in every window that begins then or before.
    pub at_ms: i64,
    /// How much.
    pub amount: i64,
}

/// What a holder asks of an account: to be allowed at least `least` in all, and `most` if there is
/// plenty. What is more than `most` is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The account.
    pub account: String,
    /// Who asks.
    pub holder: String,
    /// As which it was registered: what it asked for before it was given up is void.
    pub epoch: i64,
    /// Higher than that of every question of this holder before.
    pub number: i64,
    /// What is needed in all, with what is spent and reserved already.
    pub least: i64,
    /// What is wanted in all.
    pub most: i64,
    /// The most that all holders together may spend in the window.
    pub limit: i64,
    /// When the window begins: what was spent before counts no more.
    pub from_ms: i64,
    /// What is known to be spent in the window by calls that were not charged to the account: only
    /// the first who asks is believed.
    pub seed: i64,
    /// Where in time that counts from then on.
    pub seed_ms: i64,
}

/// What the book answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The holder may spend and reserve `allowed` in all.
    Granted {
        /// The number of the question.
        number: i64,
        /// The most, in all.
        allowed: i64,
    },
    /// There is not as much left as was needed.
    Short {
        /// The number of the question.
        number: i64,
        /// What the holder is allowed all the same.
        allowed: i64,
        /// What all have spent in the window.
        spent: i64,
        /// What all are allowed beyond that.
        held: i64,
    },
    /// A later question was answered already.
    Stale,
    /// The book does not know the holder, or not as that: it has to register, and has nothing until
    /// then.
    Unknown,
}

/// How long after its last sign of life a holder is given up, in milliseconds of the book's clock.
///
/// As long as a partition or a restart may last without a cap being overshot; as long as what a
/// machine that burns down had leased stays locked.
pub const LEASE_MS: i64 = 60_000;
/// How long a holder uses its slices after the last sign of life that it knows to have arrived, in
/// milliseconds of its own clock, from when it was sent.
pub const USABLE_MS: i64 = LEASE_MS / 2;
/// Of what is free beyond what is needed, this part is leased at most.
pub const FREE_SHARE: i64 = 16;
/// Of the limit, this part is wanted as slice.
pub const LIMIT_SHARE: i64 = 32;
/// How long what was not used is kept, in milliseconds.
pub const IDLE_MS: i64 = 2_000;
/// How long it is believed that an account is exhausted, in milliseconds.
pub const SHORT_MS: i64 = 250;
