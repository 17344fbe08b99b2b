//! For how long spend counts: windows, clocks, restarts, reloads, and the bound on accounts.

use super::*;

#[test]
fn a_new_window_starts_with_nothing_spent() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    spend_at(&mut caps, NOON, "ann", 100);
    refused(reserve_at(&mut caps, NOON + DAY / 2 - 1, "ann", 1));
    spend_at(&mut caps, NOON + DAY / 2, "ann", 100);
    assert_eq!(caps.states(NOON + DAY / 2)[0].spent.money, cents(100));
    assert_eq!(caps.states(NOON + 2 * DAY), []);
}

#[test]
fn a_call_counts_in_the_window_in_which_it_was_admitted() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let midnight = NOON + DAY / 2;
    let late = admitted(reserve_at(&mut caps, midnight - 1, "ann", 50));
    let early = admitted(reserve_at(&mut caps, midnight, "ann", 50));
    caps.settle(late, call(80));
    let state = &caps.states(midnight)[0];
    assert_eq!(held(state), (Money::ZERO, cents(50)));
    caps.settle(early, call(60));
    assert_eq!(caps.states(midnight)[0].spent.money, cents(60));
}

#[test]
fn a_clock_that_is_set_back_opens_no_window_again() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    spend_at(&mut caps, NOON, "ann", 100);
    for now_ms in [NOON - DAY, NOON - 400 * DAY, i64::MIN, 0] {
        refused(reserve_at(&mut caps, now_ms, "ann", 1));
    }
}

#[test]
fn what_was_spent_before_a_restart_still_counts() {
    let windows = [Window::Day, Window::Month, Window::Total];
    let caps = windows.map(|window| Cap {
        window,
        ..cap(&format!("{window:?}"), cents(100))
    });
    let mut caps = Caps::new(caps.to_vec());
    assert_eq!(caps.replay_since_ms(NOON), Some(i64::MIN));
    let ann = caller("ann");
    for (at_ms, amount) in [(NOON - 400 * DAY, 10), (NOON - 2 * DAY, 20), (NOON - 1, 30)] {
        caps.replay(&Spend {
            at_ms,
            subject: subject(&ann),
            amount: call(amount),
            after_change: 0,
        });
    }
    let spent: Vec<Money> = caps
        .states(NOON)
        .iter()
        .map(|state| state.spent.money)
        .collect();
    assert_eq!(spent, [cents(30), cents(50), cents(60)]);
    assert_eq!(refused(reserve(&mut caps, "ann", 41)).cap, "Total");
}

#[test]
fn spend_of_a_window_that_has_passed_is_not_counted() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    spend_at(&mut caps, NOON, "ann", 1);
    let ann = caller("ann");
    let spend = Spend {
        at_ms: NOON - DAY,
        subject: subject(&ann),
        amount: call(50),
        after_change: 0,
    };
    caps.record_spend(&spend);
    assert_eq!(caps.states(NOON)[0].spent.money, cents(1));
    caps.record_spend(&Spend {
        at_ms: NOON - HOUR,
        ..spend
    });
    assert_eq!(caps.states(NOON)[0].spent.money, cents(51));
}

#[test]
fn other_processes_in_flight_calls_count_until_they_are_replaced() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let ann = caller("ann");
    let spend = |amount| Spend {
        at_ms: NOON,
        subject: subject(&ann),
        amount: call(amount),
        after_change: 0,
    };
    caps.replace_elsewhere(NOON, [spend(50), spend(30)]);
    assert_eq!(
        refused(reserve(&mut caps, "ann", 21)).reserved,
        Quantity::Money(cents(80))
    );
    let ticket = admitted(reserve(&mut caps, "ann", 20));
    caps.replace_elsewhere(NOON, [spend(10)]);
    assert_eq!(caps.states(NOON)[0].reserved.money, cents(30));
    caps.settle(ticket, call(20));
    caps.replace_elsewhere(NOON, []);
    let state = &caps.states(NOON)[0];
    assert_eq!(held(state), (cents(20), Money::ZERO));
}

#[test]
fn a_reload_keeps_what_caps_that_count_the_same_have_counted() {
    let each = Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(100))
    };
    let mut caps = Caps::new(vec![
        cap("all", cents(100)),
        each.clone(),
        cap("gone", cents(100)),
    ]);
    spend_at(&mut caps, NOON, "ann", 40);
    let ticket = admitted(reserve(&mut caps, "ann", 10));
    let by_month = Cap {
        window: Window::Month,
        ..cap("all", cents(100))
    };
    caps.reconfigure(vec![
        Cap {
            limits: Limits::of_money(cents(60)),
            ..each
        },
        by_month,
    ]);
    assert_eq!(caps.replay_since_ms(NOON), Some(NOON - 21 * DAY - DAY / 2));
    let ann = caller("ann");
    caps.replay(&Spend {
        at_ms: NOON,
        subject: subject(&ann),
        amount: call(40),
        after_change: 0,
    });
    let state = |caps: &Caps| -> Vec<(String, Money, Money)> {
        let states = caps.states(NOON).into_iter();
        states
            .map(|state| (state.cap, state.spent.money, state.reserved.money))
            .collect()
    };
    let (each, all) = ("each".to_owned(), "all".to_owned());
    assert_eq!(
        state(&caps),
        [
            (each.clone(), cents(40), cents(10)),
            (all.clone(), cents(40), cents(10))
        ]
    );
    assert_eq!(
        refused(reserve(&mut caps, "ann", 11)).limit,
        Quantity::Money(cents(60))
    );
    caps.settle(ticket, call(15));
    assert_eq!(
        state(&caps),
        [
            (each, cents(55), Money::ZERO),
            (all, cents(55), Money::ZERO)
        ]
    );
    caps.reconfigure(caps.caps().cloned().collect());
    assert_eq!(caps.replay_since_ms(NOON), None);
}

#[test]
fn a_call_in_flight_is_held_by_a_cap_that_is_new_as_by_one_that_was_there() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let yesterday = admitted(reserve_at(&mut caps, NOON - DAY, "ann", 7));
    let ticket = admitted(reserve(&mut caps, "ann", 10));
    caps.extend(NOON, ticket, call(25)).unwrap();
    let each = Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(100))
    };
    let strict = Cap {
        kind: CapKind::Strict,
        ..cap("strict", cents(1000))
    };
    let rolling = Cap {
        window: Window::Rolling(Rolling::of_seconds(48 * 3600).unwrap()),
        ..cap("rolling", cents(100))
    };
    let others = Cap {
        only: Patterns::from([(Dimension::User, vec!["bob".to_owned()])]),
        ..cap("others", cents(100))
    };
    caps.reconfigure(vec![each, strict, rolling, others]);
    let state = |caps: &Caps| -> Vec<(String, Money, Money)> {
        let states = caps.states(NOON).into_iter();
        states
            .map(|state| (state.cap, state.spent.money, state.reserved.money))
            .collect()
    };
    let of = |name: &str, spent, reserved| (name.to_owned(), cents(spent), cents(reserved));
    assert_eq!(
        state(&caps),
        [
            of("each", 0, 25),
            of("strict", 0, 100),
            of("rolling", 0, 32)
        ]
    );
    caps.settle(ticket, call(30));
    caps.settle(yesterday, call(8));
    assert_eq!(
        state(&caps),
        [of("each", 30, 0), of("strict", 30, 0), of("rolling", 38, 0)]
    );
    assert_eq!(caps.in_flight(), 0);
}

#[test]
fn beyond_the_most_accounts_all_others_share_one() {
    let each = Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(10))
    };
    let mut caps = Caps::new(vec![each]);
    for number in 0..SCOPES_MAX {
        spend_at(&mut caps, NOON, &format!("user {number}"), 1);
    }
    assert_eq!(caps.take_shared_calls(), 0);
    for number in 0..10 {
        spend_at(&mut caps, NOON, &format!("late {number}"), 1);
    }
    let exceeded = refused(reserve(&mut caps, "late 11", 1));
    assert_eq!(
        (exceeded.scope.as_str(), exceeded.spent),
        ("all others", Quantity::Money(cents(10)))
    );
    // A look at the account counts no call.
    caps.accounts_of(NOON, &subject(&caller("late 11")), amounts(1, 10));
    assert_eq!(caps.take_shared_calls(), 11);
    spend_at(&mut caps, NOON, "user 7", 9);

    spend_at(&mut caps, NOON + DAY, "user 7", 1);
    spend_at(&mut caps, NOON + DAY, "late 11", 10);
    assert_eq!(caps.take_shared_calls(), 0);
    assert_eq!(caps.states(NOON + DAY).len(), 2);
}

#[test]
fn calls_that_cost_nothing_leave_no_account() {
    let mut caps = Caps::new(vec![Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(10))
    }]);
    for number in 0..=SCOPES_MAX {
        let ticket = admitted(reserve(&mut caps, &format!("user {number}"), 1));
        caps.release(ticket);
    }
    assert_eq!(caps.take_shared_calls(), 0);
}

#[test]
fn a_call_that_reserved_nothing_is_counted_when_others_have_ended() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let unpriced = admitted(reserve(&mut caps, "ann", 0));
    let other = admitted(reserve(&mut caps, "ann", 10));
    caps.release(other);
    caps.settle(unpriced, call(7));
    assert_eq!(caps.states(NOON)[0].spent.money, cents(7));
}
