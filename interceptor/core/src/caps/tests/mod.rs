//! Caps hold, whatever happens in what order.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod changes;
mod interleavings;
mod kinds;
mod lifetimes;

use super::*;
use crate::identity::Caller;
use crate::money::Money;

/// 2026-11-22T12:00:00Z, a Sunday.
const NOON: i64 = 1_795_348_800_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn cents(cents: i64) -> Money {
    Money::from_nanos(cents * 10_000_000)
}

fn cap(name: &str, limit: Money) -> Cap {
    Cap::new(name, Window::Day, limit)
}

fn caller(user: &str) -> Caller {
    Caller {
        user: Some(user.to_owned()),
        ..Caller::default()
    }
}

fn subject(caller: &Caller) -> Subject<'_> {
    Subject {
        caller,
        provider: "anthropic",
        host: "api.anthropic.com",
        model: "claude-opus-5-5",
    }
}

/// One call of so many cents.
fn call(amount: i64) -> Amount {
    Amount::of_call(cents(amount), 0)
}

/// Nothing but money, in cents.
fn money(amount: i64) -> Amount {
    Amount {
        money: cents(amount),
        ..Amount::ZERO
    }
}

fn amounts(expected: i64, worst: i64) -> Amounts {
    Amounts {
        expected: call(expected),
        worst: call(worst),
    }
}

/// The money of a state: spent and reserved.
fn held(state: &AccountState) -> (Money, Money) {
    (state.spent.money, state.reserved.money)
}

/// A call that is expected to cost so many cents, and ten times that at worst.
fn reserve_at(caps: &mut Caps, now_ms: i64, user: &str, expected: i64) -> Decision {
    let amounts = amounts(expected, expected * 10);
    caps.reserve(now_ms, &subject(&caller(user)), amounts)
}

fn reserve(caps: &mut Caps, user: &str, expected: i64) -> Decision {
    reserve_at(caps, NOON, user, expected)
}

#[track_caller]
fn admitted(decision: Decision) -> Ticket {
    match decision {
        Decision::Admitted { ticket, .. } => ticket,
        Decision::Refused(_) | Decision::Downgrade { .. } => panic!("{decision:?}"),
    }
}

#[track_caller]
fn refused(decision: Decision) -> Exceeded {
    match decision {
        Decision::Refused(exceeded) => *exceeded,
        Decision::Admitted { .. } | Decision::Downgrade { .. } => panic!("{decision:?}"),
    }
}

fn spend_at(caps: &mut Caps, now_ms: i64, user: &str, amount: i64) {
    let ticket = admitted(reserve_at(caps, now_ms, user, amount));
    caps.settle(ticket, call(amount));
}

#[test]
fn calls_are_admitted_up_to_the_limit_and_not_a_cent_beyond() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    spend_at(&mut caps, NOON, "ann", 60);
    let _held = admitted(reserve(&mut caps, "ann", 30));
    let exceeded = refused(reserve(&mut caps, "bob", 11));
    let expected = Exceeded {
        cap: "all".to_owned(),
        scope: "all".to_owned(),
        window: Window::Day,
        cause: Cause::InFlight,
        limit: Quantity::Money(cents(100)),
        spent: Quantity::Money(cents(60)),
        reserved: Quantity::Money(cents(30)),
        requested: Quantity::Money(cents(11)),
        resets_at_unix: Some((NOON + DAY / 2) / 1000),
        retry_after_s: Some(1),
    };
    assert_eq!(exceeded, expected);
    let _last = admitted(reserve(&mut caps, "bob", 10));
    assert_eq!(
        refused(reserve(&mut caps, "bob", 0)).requested,
        Quantity::Money(Money::ZERO)
    );
}

#[test]
fn a_limit_of_nothing_refuses_everything() {
    let mut caps = Caps::new(vec![cap("all", Money::ZERO)]);
    refused(reserve(&mut caps, "ann", 0));
}

#[test]
fn without_caps_every_call_is_admitted_and_none_is_remembered_after_its_end() {
    let mut caps = Caps::new(Vec::new());
    let ticket = admitted(reserve(&mut caps, "ann", 1_000_000));
    assert_eq!(caps.settle(ticket, call(1_000_000)), []);
    assert_eq!(caps.in_flight(), 0);
}

#[test]
fn a_refused_call_reserves_nothing_under_any_cap() {
    let wide = cap("wide", cents(1000));
    let narrow = Cap {
        per: vec![Dimension::User],
        ..cap("narrow", cents(10))
    };
    let mut caps = Caps::new(vec![wide, narrow]);
    assert_eq!(refused(reserve(&mut caps, "ann", 11)).cap, "narrow");
    assert_eq!((caps.states(NOON), caps.in_flight()), (vec![], 0));
}

#[test]
fn a_ticket_counts_once() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let ticket = admitted(reserve(&mut caps, "ann", 10));
    let other = admitted(reserve(&mut caps, "ann", 20));
    caps.settle(ticket, call(5));
    caps.settle(ticket, call(5));
    caps.release(ticket);
    let state = &caps.states(NOON)[0];
    assert_eq!(held(state), (cents(5), cents(20)));
    caps.release(other);
    caps.settle(other, call(50));
    let state = &caps.states(NOON)[0];
    assert_eq!(held(state), (cents(5), Money::ZERO));
}

#[test]
fn negative_amounts_count_as_nothing() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let ticket = admitted(reserve(&mut caps, "ann", -50));
    caps.settle(ticket, call(-50));
    assert_eq!(held(&caps.states(NOON)[0]), (Money::ZERO, Money::ZERO));
}

#[test]
fn each_value_of_a_dimension_has_an_account() {
    let mut caps = Caps::new(vec![Cap {
        per: vec![Dimension::User],
        ..cap("each", cents(10))
    }]);
    spend_at(&mut caps, NOON, "ann", 10);
    spend_at(&mut caps, NOON, "bob", 9);
    assert_eq!(refused(reserve(&mut caps, "ann", 1)).scope, "user=ann");
    admitted(reserve(&mut caps, "bob", 1));
    let scopes: Vec<String> = caps
        .states(NOON)
        .into_iter()
        .map(|state| state.scope)
        .collect();
    assert_eq!(scopes, ["user=ann", "user=bob"]);
}

#[test]
fn every_dimension_tells_its_values_apart() {
    let named = |name: &str| Caller {
        key: Some(name.to_owned()),
        user: Some(name.to_owned()),
        process: Some(name.to_owned()),
        cgroup: Some(name.to_owned()),
        container: Some(name.to_owned()),
        pod: Some(name.to_owned()),
        namespace: Some(name.to_owned()),
        service_account: Some(name.to_owned()),
        team: Some(name.to_owned()),
        session: Some(name.to_owned()),
    };
    let dimensions = [
        Dimension::Key,
        Dimension::User,
        Dimension::Process,
        Dimension::Cgroup,
        Dimension::Container,
        Dimension::Pod,
        Dimension::Namespace,
        Dimension::ServiceAccount,
        Dimension::Team,
        Dimension::Host,
        Dimension::Provider,
        Dimension::Model,
        Dimension::Session,
    ];
    for dimension in dimensions {
        let mut caps = Caps::new(vec![Cap {
            per: vec![dimension],
            ..cap("each", cents(10))
        }]);
        let (a, b) = (named("a"), named("b"));
        let spend = |caps: &mut Caps, caller: &Caller, name: &str| {
            let subject = Subject {
                caller,
                provider: name,
                host: name,
                model: name,
            };
            let amounts = amounts(10, 10);
            let ticket = admitted(caps.reserve(NOON, &subject, amounts));
            caps.settle(ticket, call(10));
        };
        spend(&mut caps, &a, "a");
        spend(&mut caps, &b, "b");
        let name = dimension.as_str();
        let scopes: Vec<String> = caps
            .states(NOON)
            .into_iter()
            .map(|state| state.scope)
            .collect();
        assert_eq!(scopes, [format!("{name}=a"), format!("{name}=b")]);
        assert_eq!(
            serde_json::to_string(&dimension).unwrap(),
            format!("{name:?}")
        );
    }
}

#[test]
fn unknown_values_share_an_account_that_no_name_reaches() {
    let mut caps = Caps::new(vec![Cap {
        per: vec![Dimension::User, Dimension::Process],
        ..cap("each", cents(10))
    }]);
    let nobody = Caller::default();
    let amounts = amounts(10, 10);
    admitted(caps.reserve(NOON, &subject(&nobody), amounts));
    let exceeded = refused(caps.reserve(NOON, &subject(&nobody), amounts));
    assert_eq!(exceeded.scope, "user=unknown, process=unknown");
    let pairs = [
        ("unknown", "unknown"),
        ("", ""),
        ("a", "1:b"),
        ("a1:", "b"),
        ("1:a", "b"),
    ];
    for (user, process) in pairs {
        let caller = Caller {
            process: Some(process.to_owned()),
            ..caller(user)
        };
        admitted(caps.reserve(NOON, &subject(&caller), amounts));
    }
}

#[test]
fn a_cap_counts_only_what_it_names() {
    let only = |rules: &[(Dimension, &[&str])]| {
        let rules = rules.iter().map(|(dimension, values)| {
            (
                *dimension,
                values.iter().map(|value| (*value).to_owned()).collect(),
            )
        });
        let mut caps = Caps::new(vec![Cap {
            only: rules.collect(),
            ..cap("some", Money::ZERO)
        }]);
        matches!(reserve(&mut caps, "ann", 1), Decision::Refused(_))
    };
    assert!(only(&[]));
    assert!(only(&[(Dimension::Provider, &["openai", "anthropic"])]));
    assert!(only(&[
        (Dimension::Model, &["claude-*"]),
        (Dimension::User, &["ann"])
    ]));
    assert!(only(&[(Dimension::Host, &["*"])]));
    assert!(!only(&[(Dimension::Provider, &["openai"])]));
    assert!(!only(&[(Dimension::Model, &["claude"])]));
    assert!(!only(&[
        (Dimension::Model, &["claude-*"]),
        (Dimension::User, &["bob"])
    ]));
    assert!(!only(&[(Dimension::Team, &["core"])]));
    assert!(!only(&[(Dimension::Team, &[])]));
}

#[test]
fn of_several_caps_the_one_that_resets_last_is_told() {
    let windows = [Window::Hour, Window::Total, Window::Month, Window::Day];
    let caps = windows.map(|window| Cap {
        window,
        ..cap(&format!("{window:?}"), Money::ZERO)
    });
    let mut all = Caps::new(caps.to_vec());
    assert_eq!(refused(reserve(&mut all, "ann", 1)).cap, "Total");
    let mut finite = Caps::new(caps.into_iter().filter(|cap| cap.name != "Total").collect());
    assert_eq!(refused(reserve(&mut finite, "ann", 1)).cap, "Month");
}

#[test]
fn an_expected_cap_reserves_the_expected_and_a_strict_one_the_worst() {
    for (kind, reserved) in [(CapKind::Expected, cents(5)), (CapKind::Strict, cents(50))] {
        let mut caps = Caps::new(vec![Cap {
            kind,
            ..cap("all", cents(100))
        }]);
        admitted(reserve(&mut caps, "ann", 5));
        assert_eq!(caps.states(NOON)[0].reserved.money, reserved);
    }
}

#[test]
fn a_cap_that_warns_admits_and_says_so_once_per_window() {
    let mut caps = Caps::new(vec![Cap {
        on_exceed: OnExceed::Warn,
        ..cap("soft", cents(10))
    }]);
    let mut warned = |now_ms, amount| match reserve_at(&mut caps, now_ms, "ann", amount) {
        Decision::Admitted { ticket, warnings } => {
            caps.settle(ticket, call(amount));
            warnings.len()
        }
        other => panic!("{other:?}"),
    };
    let seen = [8, 3, 1, 1].map(|amount| warned(NOON, amount));
    assert_eq!(seen, [0, 1, 0, 0]);
    assert_eq!(
        [8, 3, 1].map(|amount| warned(NOON + DAY, amount)),
        [0, 1, 0]
    );
}

#[test]
fn a_warning_of_a_soft_cap_is_not_used_up_by_a_refusal_of_another() {
    let soft = Cap {
        on_exceed: OnExceed::Warn,
        ..cap("soft", cents(1))
    };
    let mut caps = Caps::new(vec![soft, cap("hard", cents(10))]);
    refused(reserve(&mut caps, "ann", 11));
    match reserve(&mut caps, "ann", 10) {
        Decision::Admitted { warnings, .. } => assert_eq!(warnings.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_share_of_the_limit_is_said_once_per_window() {
    let warn_at_permille = vec![800, 500, 1000];
    let mut caps = Caps::new(vec![Cap {
        warn_at_permille,
        ..cap("all", cents(100))
    }]);
    let mut reached = |now_ms, amount| -> Vec<u16> {
        let ticket = admitted(reserve_at(&mut caps, now_ms, "ann", 0));
        let warnings = caps.settle(ticket, call(amount)).into_iter();
        warnings
            .map(|warning| match warning {
                Warning::Reached { permille, .. } => permille,
                Warning::Exceeded(exceeded) => panic!("{exceeded:?}"),
            })
            .collect()
    };
    assert!(reached(NOON, 49).is_empty());
    assert_eq!(reached(NOON, 1), [500]);
    assert!(reached(NOON, 1).is_empty());
    assert_eq!(reached(NOON, 60), [800, 1000]);
    assert_eq!(reached(NOON + DAY, 90), [500, 800]);
}
