//! Raises, resets, and limits that are granted in parts.

use super::*;

fn raise(scope: Option<&str>, by: i64, until_ms: i64) -> Change {
    Change {
        number: 1,
        at_ms: NOON,
        cap: "each".to_owned(),
        scope: scope.map(str::to_owned),
        kind: ChangeKind::Raise {
            by: money(by),
            until_ms,
        },
        author: "root".to_owned(),
        reason: "a release".to_owned(),
    }
}

fn reset(scope: Option<&str>, number: i64) -> Change {
    Change {
        number,
        kind: ChangeKind::Reset,
        ..raise(scope, 0, 0)
    }
}

fn each() -> Caps {
    Caps::new(vec![Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(10))
    }])
}

#[test]
fn a_raise_allows_more_for_its_account_until_it_ends() {
    let mut caps = each();
    spend_at(&mut caps, NOON, "ann", 10);
    spend_at(&mut caps, NOON, "bob", 10);
    caps.change(NOON, vec![raise(Some("user=ann"), 5, NOON + HOUR)]);
    refused(reserve(&mut caps, "bob", 1));
    assert_eq!(
        refused(reserve(&mut caps, "ann", 6)).limit,
        Quantity::Money(cents(15))
    );
    spend_at(&mut caps, NOON + HOUR - 1, "ann", 4);
    let exceeded = refused(reserve_at(&mut caps, NOON + HOUR, "ann", 1));
    assert_eq!(
        (exceeded.limit, exceeded.spent),
        (Quantity::Money(cents(10)), Quantity::Money(cents(14)))
    );
}

#[test]
fn raises_add_up_and_those_of_no_scope_are_for_all() {
    let mut caps = each();
    caps.change(
        NOON,
        vec![
            raise(Some("user=ann"), 5, NOON + HOUR),
            raise(None, 20, NOON + HOUR),
        ],
    );
    spend_at(&mut caps, NOON, "ann", 35);
    refused(reserve(&mut caps, "ann", 1));
    spend_at(&mut caps, NOON, "bob", 30);
    refused(reserve(&mut caps, "bob", 1));
    assert_eq!(caps.states(NOON)[0].limits, Limits::of_money(cents(35)));
    caps.change(NOON, Vec::new());
    assert_eq!(caps.states(NOON)[0].limits, Limits::of_money(cents(10)));
}

#[test]
fn a_reset_forgets_what_is_spent_but_not_what_is_in_flight_and_happens_once() {
    let mut caps = each();
    spend_at(&mut caps, NOON, "ann", 8);
    spend_at(&mut caps, NOON, "bob", 8);
    let ticket = admitted(reserve(&mut caps, "ann", 2));
    let resets = vec![reset(Some("user=ann"), 2)];
    caps.change(NOON + 1, resets.clone());
    assert_eq!(held(&caps.states(NOON)[0]), (Money::ZERO, cents(2)));
    assert_eq!(held(&caps.states(NOON)[1]), (cents(8), Money::ZERO));
    caps.settle(ticket, call(3));
    caps.change(NOON + 2, [resets, vec![raise(None, 1, NOON)]].concat());
    assert_eq!(held(&caps.states(NOON)[0]), (cents(3), Money::ZERO));
}

#[test]
fn a_reset_forgets_what_came_before_it_in_the_ledger_whatever_clocks_say() {
    let mut caps = each();
    caps.change(NOON, vec![reset(Some("user=ann"), 7)]);
    let spend = |caps: &mut Caps, user: &str, at_ms, after_change| {
        let caller = caller(user);
        caps.replay(&Spend {
            at_ms,
            subject: subject(&caller),
            amount: call(4),
            after_change,
        });
    };
    for user in ["ann", "bob"] {
        // The first began after the second, by a clock that was set back.
        spend(&mut caps, user, NOON + 1, 6);
        spend(&mut caps, user, NOON, 7);
    }
    let spent: Vec<Money> = caps
        .states(NOON)
        .iter()
        .map(|state| state.spent.money)
        .collect();
    assert_eq!(spent, [cents(4), cents(8)]);
    // A cap that is configured later knows the changes that were made before.
    caps.reconfigure(vec![]);
    caps.reconfigure(vec![Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(10))
    }]);
    spend(&mut caps, "ann", NOON, 6);
    assert_eq!(caps.states(NOON), []);
    let ann = caller("ann");
    caps.replace_elsewhere(
        NOON,
        [Spend {
            at_ms: NOON - 1,
            subject: subject(&ann),
            amount: call(2),
            after_change: i64::MAX,
        }],
    );
    assert_eq!(held(&caps.states(NOON)[0]), (Money::ZERO, cents(2)));
}

#[test]
fn a_second_reset_is_one_and_the_same_again_is_none() {
    let mut caps = each();
    let spent = |caps: &Caps| caps.states(NOON).first().map(|state| state.spent.money);
    for number in 1..=2 {
        spend_at(&mut caps, NOON, "ann", 7);
        assert!(caps.change(NOON, vec![reset(None, number)]));
        assert_eq!(spent(&caps), None);
        spend_at(&mut caps, NOON, "ann", 3);
        assert!(!caps.change(NOON, vec![reset(None, number)]));
        assert_eq!(spent(&caps), Some(cents(3)));
    }
}

#[test]
fn an_account_is_found_by_what_it_is_shown_as() {
    let caps = Caps::new(vec![
        cap("one", cents(1)),
        Cap {
            per: vec![Dimension::User, Dimension::Team],
            ..cap("two", cents(1))
        },
    ]);
    let key = |cap, scope| caps.use_named(cap, scope).map(|of| of.key);
    let some = |key: &str| Some(key.to_owned());
    assert_eq!(key("one", "all"), some(""));
    assert_eq!(key("two", "all others"), some("others"));
    assert_eq!(key("two", "user=ann, team=a=b"), some("3:ann3:a=b"));
    assert_eq!(key("two", "user=ü, team=unknown"), some("2:ü0?"));
    for (cap, scope) in [
        ("one", "user=ann"),
        ("two", "all"),
        ("two", "user=ann"),
        ("two", "team=a, user=ann"),
        ("two", ""),
        ("gone", "all"),
    ] {
        assert_eq!(key(cap, scope), None, "{cap} {scope}");
    }
    let two = caps.caps().nth(1).unwrap();
    let values = two.values_of("user=ann, team=unknown");
    assert_eq!(
        values,
        [(Dimension::User, Some("ann")), (Dimension::Team, None)]
    );
    assert_eq!(two.values_of("all others"), []);
}

#[test]
fn what_is_granted_after_a_reset_can_be_spent_again() {
    let mut caps = each();
    caps.set_leased(true);
    let ann = caller("ann");
    let of = caps
        .accounts_of(NOON, &subject(&ann), amounts(1, 1))
        .remove(0);
    caps.grant("each", &of.key, of.period_start_ms, money(5));
    spend_at(&mut caps, NOON, "ann", 5);
    assert_eq!(refused(reserve(&mut caps, "ann", 1)).cause, Cause::Grant);
    caps.change(NOON, vec![reset(Some("user=ann"), 1)]);
    admitted(reserve(&mut caps, "ann", 5));
    assert_eq!(refused(reserve(&mut caps, "ann", 1)).cause, Cause::Grant);
}

#[test]
fn where_limits_are_leased_a_process_spends_what_it_was_granted() {
    let mut caps = each();
    caps.set_leased(true);
    let ann = caller("ann");
    assert_eq!(refused(reserve(&mut caps, "ann", 1)).cause, Cause::Grant);
    let account = caps
        .accounts_of(NOON, &subject(&ann), amounts(3, 3))
        .remove(0);
    assert_eq!(
        (account.granted, account.own, account.amount),
        (None, Amount::ZERO, call(3))
    );
    let grant = |caps: &mut Caps, most, start_ms| {
        caps.grant("each", &account.key, start_ms, money(most));
    };
    grant(&mut caps, 5, account.period_start_ms);
    let ticket = admitted(reserve(&mut caps, "ann", 4));
    assert_eq!(refused(reserve(&mut caps, "ann", 2)).cause, Cause::Grant);
    assert_eq!(
        caps.extend(NOON, ticket, call(6)).unwrap_err().cause,
        Cause::Grant
    );
    caps.settle(ticket, call(3));
    // What others spent counts for the limit, not for the grant.
    caps.record_spend(&Spend {
        at_ms: NOON,
        subject: subject(&ann),
        amount: call(4),
        after_change: 0,
    });
    let again = caps
        .accounts_of(NOON, &subject(&ann), amounts(1, 1))
        .remove(0);
    assert_eq!((again.own, again.spent.money), (call(3), cents(7)));
    let second = admitted(reserve(&mut caps, "ann", 2));
    grant(&mut caps, 100, account.period_start_ms - DAY);
    assert_eq!(refused(reserve(&mut caps, "ann", 1)).cause, Cause::Grant);
    grant(&mut caps, 100, account.period_start_ms);
    assert_eq!(refused(reserve(&mut caps, "ann", 2)).cause, Cause::InFlight);
    caps.release(second);
    admitted(reserve(&mut caps, "ann", 3));
    // In the next window nothing is granted.
    assert_eq!(
        refused(reserve_at(&mut caps, NOON + DAY, "ann", 1)).cause,
        Cause::Grant
    );
}

#[test]
fn what_was_spent_while_a_cap_only_warned_is_not_taken_out_of_what_is_granted_then() {
    let warns = Cap {
        on_exceed: OnExceed::Warn,
        ..cap("all", cents(10))
    };
    let mut caps = Caps::new(vec![warns]);
    caps.set_leased(true);
    let ann = caller("ann");
    // Nothing is granted of it, and nothing is said of that.
    let decision = reserve(&mut caps, "ann", 4);
    assert!(
        matches!(&decision, Decision::Admitted { warnings, .. } if warnings.is_empty()),
        "{decision:?}"
    );
    caps.settle(admitted(decision), call(4));
    caps.reconfigure(vec![cap("all", cents(10))]);
    let of = caps
        .accounts_of(NOON, &subject(&ann), amounts(1, 1))
        .remove(0);
    assert_eq!((of.spent.money, of.own), (cents(4), Amount::ZERO));
    caps.grant("all", &of.key, of.period_start_ms, money(6));
    admitted(reserve(&mut caps, "ann", 6));
}

#[test]
fn what_costs_nothing_needs_no_grant() {
    let mut caps = each();
    caps.set_leased(true);
    admitted(reserve(&mut caps, "ann", 0));
    assert_eq!(refused(reserve(&mut caps, "ann", 1)).cause, Cause::Grant);
}
