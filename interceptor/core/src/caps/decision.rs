//! What the caps say: whether a call may be made, why not, and what is worth a warning.

use serde::Serialize;

use super::amount::{Amount, Limits, Quantity};
use super::cap::OnExceed;
use super::window::Window;
use crate::identity::Subject;

/// The reservation of a call that was admitted: to be settled or released, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) u64);

/// Whether a call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may, and its amount is reserved.
    Admitted {
        /// What to settle or release.
        ticket: Ticket,
        /// Caps that it exceeds and that only warn.
        warnings: Vec<Warning>,
    },
    /// Not with this model, and nothing is reserved: with the one that the cap names it is to be
    /// asked again, by [`super::Caps::reserve_downgraded`].
    Downgrade {
        /// The model to fall to.
        to: String,
        /// The cap that wants it.
        exceeded: Box<Exceeded>,
    },
    /// It may not, and nothing is reserved. Of several caps the one that stands in the way longest
    /// is told.
    Refused(Box<Exceeded>),
}

/// Why a call does not fit, from what passes soonest to what lasts longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// What this process was granted of the limit is used up; more may be had of who grants it.
    Grant,
    /// Calls in flight have reserved what it needs; some of it will be free when they end.
    InFlight,
    /// Money is spent too fast. It will fit when some of it is longer ago.
    Velocity,
    /// What may be spent in the window is spent, or too little is left for this call.
    Exhausted,
    /// It costs more than one call may.
    PerCall,
}

/// A cap that a call does not fit under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The cap.
    pub cap: String,
    /// Whose account it is: `user=alice`, or `all` for a cap that is kept by nothing.
    pub scope: String,
    /// The window of the cap.
    pub window: Window,
    /// Why it does not fit.
    pub cause: Cause,
    /// The limit that is in the way.
    pub limit: Quantity,
    /// What is spent.
    pub spent: Quantity,
    /// What other calls have reserved.
    pub reserved: Quantity,
    /// What this call would have reserved.
    pub requested: Quantity,
    /// When the window ends, in seconds since 1970; of a rolling one, when the call would fit. None
    /// where it never does.
    pub resets_at_unix: Option<i64>,
    /// In how many seconds it is worth trying again; none where waiting does not help.
    pub retry_after_s: Option<u64>,
}

/// Something to be said about an account that is not a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A call was admitted beyond a cap that only warns. Said once per window and account.
    Exceeded(Box<Exceeded>),
    /// What is spent has reached a share of the limit. Said once per window and account.
    Reached {
        /// The share, in thousandths.
        permille: u16,
        /// The state of the account.
        account: AccountState,
    },
}

/// What an account holds at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountState {
    /// The cap.
    pub cap: String,
    /// Whose account it is.
    pub scope: String,
    /// The window of the cap.
    pub window: Window,
    /// The limits of the cap, raises in force included.
    pub limits: Limits,
    /// What is spent.
    pub spent: Amount,
    /// What calls in flight have reserved.
    pub reserved: Amount,
    /// The highest share of the limit that was warned of in this window, in thousandths.
    pub warned_permille: Option<u16>,
    /// When the window ends, in seconds since 1970; none where it never does, or rolls on.
    pub resets_at_unix: Option<i64>,
}

/// An amount spent or reserved that this process did not admit.
#[derive(Clone, Copy, Debug)]
pub struct Spend<'a> {
    /// When the call began, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who called what.
    pub subject: Subject<'a>,
    /// How much.
    pub amount: Amount,
    /// The number of the last [`super::Change`] that it came after, in the order of the ledger,
    /// whatever clocks say: a later reset forgets it. [`i64::MAX`] for what is not over yet.
    pub after_change: i64,
}

/// An account that would count a call, for whoever grants parts of its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountUse {
    /// The cap.
    pub cap: String,
    /// What the cap counts ([`super::Cap::id`]).
    pub cap_id: u64,
    /// Names the account among those of the cap, on each node the same.
    pub key: String,
    /// The window of the cap.
    pub window: Window,
    /// The start of the window in force, in milliseconds since 1970; [`i64::MIN`] for ever.
    pub period_start_ms: i64,
    /// What happens beyond the limit.
    pub on_exceed: OnExceed,
    /// Whether the cap is one against spending too fast.
    pub breaker: bool,
    /// Whether a call's limit on output may be lowered for it to fit.
    pub clamp: bool,
    /// The limits of the cap, raises in force included.
    pub limits: Limits,
    /// What is spent, as far as this process knows.
    pub spent: Amount,
    /// What this process has spent, since something was granted, and reserved.
    pub own: Amount,
    /// What the call would reserve.
    pub amount: Amount,
    /// What `own` may come to; none where nothing was granted.
    pub granted: Option<Amount>,
}
