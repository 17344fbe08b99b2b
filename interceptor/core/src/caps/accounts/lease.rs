//! Limits of which this process may spend what it is granted.

use super::super::account::Account;
use super::super::amount::{Amount, Limits};
use super::super::cap::OnExceed;
use super::super::decision::AccountUse;
use super::key::key_of;
use super::{Accounts, Hold};

impl Accounts {
    /// The account that counts a subject, as whoever grants parts of its limit wants it.
    pub(in crate::caps) fn account_use(&self, key: &str, amount: Amount) -> AccountUse {
        let account = self.live(key);
        let rolling = self.cap.window.as_rolling();
        AccountUse {
            cap: self.cap.name.clone(),
            cap_id: self.cap.id(),
            key: key.to_owned(),
            window: self.cap.window,
            period_start_ms: match rolling {
                None => self.period.start_ms,
                Some(rolling) => self.now_ms.saturating_sub(rolling.length_ms()),
            },
            on_exceed: self.cap.on_exceed,
            breaker: self.cap.breaker,
            clamp: self.cap.clamp,
            limits: self.limits(key),
            spent: self.spent_and_reserved(account).0,
            own: self.own(account),
            amount,
            granted: account.and_then(Account::granted),
        }
    }

    /// The account of a call that holds something, with how much more of it the call wants; none
    /// where it wants nothing that could be refused.
    pub(in crate::caps) fn use_of_more(&self, held: &Hold, wanted: Amount) -> Option<AccountUse> {
        let more = self.wants(held, wanted);
        let blocks = self.cap.on_exceed == OnExceed::Block && self.live_of(held).is_some();
        (blocks && more != Amount::ZERO).then(|| self.account_use(&held.key, more))
    }

    /// The account that is shown as `scope`, whether or not it has ever been used.
    pub(in crate::caps) fn use_named(&self, scope: &str) -> Option<AccountUse> {
        let key = key_of(&self.cap.per, scope)?;
        Some(self.account_use(&key, Amount::ZERO))
    }

    /// Lets this process spend so much in the window that starts at a moment; nothing where that
    /// is not the one in force. A rolling window is always in force.
    pub(in crate::caps) fn grant(&mut self, key: &str, period_start_ms: i64, most: Amount) {
        let is_rolling = self.cap.window.as_rolling().is_some();
        if is_rolling || self.period.start_ms == period_start_ms {
            self.account(key.to_owned()).1.grant(most);
        }
    }

    /// What is granted, of the kinds that are limited.
    pub(super) fn granted(&self, granted: Amount) -> Limits {
        let limits = self.cap.limits;
        Limits {
            money: limits.money.map(|_| granted.money),
            tokens: limits.tokens.map(|_| granted.tokens),
            calls: limits.calls.map(|_| granted.calls),
        }
    }

    /// What this process has spent and reserved of its grant.
    pub(super) fn own(&self, account: Option<&Account>) -> Amount {
        let rolling = self.cap.window.as_rolling();
        account.map_or(Amount::ZERO, |account| account.own(rolling, self.now_ms))
    }
}
