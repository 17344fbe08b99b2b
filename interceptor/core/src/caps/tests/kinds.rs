//! What is limited besides money in a calendar window: tokens, calls, single calls, speed.

use super::*;

fn minutes(minutes: u32) -> Window {
    Window::Rolling(Rolling::of_seconds(minutes * 60).unwrap())
}

/// Calls of so many tokens that cost nothing.
fn tokens(tokens: u64) -> Amounts {
    let amount = Amount::of_call(Money::ZERO, tokens);
    Amounts {
        expected: amount,
        worst: amount,
    }
}

fn limited(limits: Limits) -> Caps {
    Caps::new(vec![Cap {
        limits,
        ..cap("all", Money::ZERO)
    }])
}

#[test]
fn tokens_are_limited_whatever_they_cost() {
    let mut caps = limited(Limits {
        tokens: Some(1000),
        ..Limits::default()
    });
    let ann = caller("ann");
    let ticket = admitted(caps.reserve(NOON, &subject(&ann), tokens(400)));
    caps.settle(ticket, Amount::of_call(cents(1_000_000), 700));
    let exceeded = refused(caps.reserve(NOON, &subject(&ann), tokens(301)));
    assert_eq!(
        (exceeded.limit, exceeded.spent, exceeded.requested),
        (
            Quantity::Tokens(1000),
            Quantity::Tokens(700),
            Quantity::Tokens(301)
        )
    );
    admitted(caps.reserve(NOON, &subject(&ann), tokens(300)));
}

#[test]
fn calls_are_limited_and_those_that_are_not_billed_are_none() {
    let mut caps = limited(Limits {
        calls: Some(2),
        ..Limits::default()
    });
    let unbilled = admitted(reserve(&mut caps, "ann", 1));
    caps.release(unbilled);
    spend_at(&mut caps, NOON, "ann", 1);
    let second = admitted(reserve(&mut caps, "ann", 1));
    let exceeded = refused(reserve(&mut caps, "ann", 1));
    assert_eq!(
        (exceeded.cause, exceeded.limit),
        (Cause::InFlight, Quantity::Calls(2))
    );
    caps.settle(second, call(1));
    assert_eq!(
        refused(reserve(&mut caps, "ann", 1)).cause,
        Cause::Exhausted
    );
}

#[test]
fn of_several_limits_all_must_admit() {
    let mut caps = limited(Limits {
        money: Some(cents(10)),
        tokens: Some(100),
        calls: Some(3),
    });
    let ann = caller("ann");
    let of = |money, tokens| Amounts {
        expected: Amount::of_call(cents(money), tokens),
        worst: Amount::of_call(cents(money), tokens),
    };
    let limit = |decision| refused(decision).limit;
    assert_eq!(
        limit(caps.reserve(NOON, &subject(&ann), of(11, 1))),
        Quantity::Money(cents(10))
    );
    assert_eq!(
        limit(caps.reserve(NOON, &subject(&ann), of(1, 101))),
        Quantity::Tokens(100)
    );
    for _ in 0..3 {
        admitted(caps.reserve(NOON, &subject(&ann), of(1, 1)));
    }
    assert_eq!(
        limit(caps.reserve(NOON, &subject(&ann), of(1, 1))),
        Quantity::Calls(3)
    );
}

#[test]
fn a_single_call_may_not_cost_more_than_is_said() {
    let mut caps = Caps::new(vec![Cap {
        per_call: Some(cents(5)),
        ..cap("each", cents(100))
    }]);
    let exceeded = refused(reserve(&mut caps, "ann", 6));
    assert_eq!(
        (exceeded.cause, exceeded.limit),
        (Cause::PerCall, Quantity::Money(cents(5)))
    );
    assert_eq!(
        (exceeded.resets_at_unix, exceeded.retry_after_s),
        (None, None)
    );
    let ticket = admitted(reserve(&mut caps, "ann", 5));
    let grown = caps.extend(NOON, ticket, call(6)).unwrap_err();
    assert_eq!(grown.cause, Cause::PerCall);
}

#[test]
fn a_rolling_window_forgets_what_is_as_long_ago_as_it_is_long_and_a_step_at_most_later() {
    let hour = minutes(60);
    let step = HOUR / 24;
    let mut caps = Caps::new(vec![Cap {
        window: hour,
        ..cap("rolling", cents(100))
    }]);
    let spent = |caps: &Caps, now_ms| {
        caps.states(now_ms)
            .first()
            .map_or(Money::ZERO, |it| it.spent.money)
    };
    spend_at(&mut caps, NOON, "ann", 60);
    spend_at(&mut caps, NOON + HOUR / 2, "ann", 40);
    assert_eq!(spent(&caps, NOON + HOUR - 1), cents(100));
    let exceeded = refused(reserve_at(&mut caps, NOON + HOUR - 1, "ann", 10));
    assert_eq!(exceeded.resets_at_unix, Some((NOON + HOUR + step) / 1000));
    assert_eq!(spent(&caps, NOON + HOUR + step), cents(40));
    spend_at(&mut caps, NOON + HOUR + step, "ann", 60);
    assert_eq!(spent(&caps, NOON + HOUR + HOUR / 2 + step), cents(60));
    refused(reserve_at(&mut caps, NOON + HOUR + step, "ann", 1));
    // A clock that is set back brings nothing back, and opens nothing.
    refused(reserve_at(&mut caps, NOON - 10 * HOUR, "ann", 41));
    assert_eq!(caps.states(NOON + 10 * HOUR), []);
}

#[test]
fn what_a_rolling_window_holds_is_replayed_in_any_order() {
    let mut caps = Caps::new(vec![Cap {
        window: minutes(60),
        ..cap("rolling", cents(100))
    }]);
    let since = caps.replay_since_ms(NOON).unwrap();
    assert!(
        (NOON - HOUR - HOUR / 24..=NOON - HOUR).contains(&since),
        "{since}"
    );
    let ann = caller("ann");
    for (minutes_ago, amount) in [(5, 1), (70, 50), (50, 2), (0, 4), (58, 8)] {
        caps.replay(&Spend {
            at_ms: NOON - minutes_ago * 60_000,
            subject: subject(&ann),
            amount: call(amount),
            after_change: 0,
        });
    }
    assert_eq!(caps.states(NOON)[0].spent.money, cents(15));
}

#[test]
fn a_breaker_stops_what_runs_away_and_says_when_it_passes() {
    let mut caps = Caps::new(vec![Cap {
        window: minutes(10),
        breaker: true,
        ..cap("breaker", cents(100))
    }]);
    for _ in 0..10 {
        spend_at(&mut caps, NOON, "ann", 10);
    }
    let exceeded = refused(reserve_at(&mut caps, NOON + 60_000, "ann", 10));
    assert_eq!(exceeded.cause, Cause::Velocity);
    // Ten minutes and a step of 25 seconds after the spend, one minute of which is over.
    assert_eq!(exceeded.retry_after_s, Some(9 * 60 + 25));
    admitted(reserve_at(
        &mut caps,
        NOON + 10 * 60_000 + 25_000,
        "ann",
        10,
    ));
}

#[test]
fn a_soft_breaker_says_so_once_per_window() {
    let mut caps = Caps::new(vec![Cap {
        window: minutes(10),
        breaker: true,
        on_exceed: OnExceed::Warn,
        ..cap("breaker", cents(10))
    }]);
    let mut warned = |minute: i64| match reserve_at(&mut caps, NOON + minute * 60_000, "ann", 6) {
        Decision::Admitted { ticket, warnings } => {
            caps.settle(ticket, call(6));
            warnings.len()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 2, 3].map(&mut warned), [0, 1, 0, 0]);
    assert_eq!([30, 31, 32].map(&mut warned), [0, 1, 0]);
}

#[test]
fn a_stream_that_grows_takes_more_until_nothing_is_left() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let ticket = admitted(reserve(&mut caps, "ann", 10));
    let other = admitted(reserve(&mut caps, "bob", 50));
    assert_eq!(caps.extend(NOON, ticket, call(5)), Ok(()));
    assert_eq!(held(&caps.states(NOON)[0]).1, cents(60));
    assert_eq!(caps.extend(NOON, ticket, call(50)), Ok(()));
    assert_eq!(held(&caps.states(NOON)[0]).1, cents(100));
    let exceeded = caps.extend(NOON, ticket, call(51)).unwrap_err();
    assert_eq!(exceeded.cause, Cause::InFlight);
    assert_eq!(held(&caps.states(NOON)[0]).1, cents(100));
    caps.release(other);
    assert_eq!(caps.extend(NOON, ticket, call(51)), Ok(()));
    let exceeded = caps.extend(NOON, ticket, call(101)).unwrap_err();
    assert_eq!(exceeded.cause, Cause::Exhausted);
    caps.settle(ticket, call(60));
    assert_eq!(held(&caps.states(NOON)[0]), (cents(60), Money::ZERO));
    assert_eq!(
        caps.extend(NOON, ticket, call(1000)),
        Ok(()),
        "it has ended"
    );
}

#[test]
fn a_stream_takes_more_under_all_caps_or_none_and_only_hard_ones_end_it() {
    let hard = cap("hard", cents(20));
    let soft = Cap {
        on_exceed: OnExceed::Warn,
        ..cap("soft", cents(1))
    };
    let strict = Cap {
        kind: CapKind::Strict,
        ..cap("strict", cents(1000))
    };
    let mut caps = Caps::new(vec![soft, hard, strict]);
    let ticket = admitted(reserve(&mut caps, "ann", 10));
    let reserved = |caps: &Caps| -> Vec<Money> {
        caps.states(NOON)
            .iter()
            .map(|state| state.reserved.money)
            .collect()
    };
    assert_eq!(caps.extend(NOON, ticket, call(20)), Ok(()));
    assert_eq!(reserved(&caps), [20, 20, 100].map(cents));
    assert_eq!(caps.extend(NOON, ticket, call(21)).unwrap_err().cap, "hard");
    assert_eq!(reserved(&caps), [20, 20, 100].map(cents));
}

#[test]
fn a_stream_that_outlives_its_window_takes_nothing_of_the_next() {
    let mut caps = Caps::new(vec![cap("all", cents(100))]);
    let ticket = admitted(reserve(&mut caps, "ann", 10));
    assert_eq!(caps.extend(NOON + DAY, ticket, call(5000)), Ok(()));
    spend_at(&mut caps, NOON + DAY, "ann", 1);
    assert_eq!(held(&caps.states(NOON + DAY)[0]), (cents(1), Money::ZERO));
    caps.settle(ticket, call(5000));
    assert_eq!(held(&caps.states(NOON + DAY)[0]), (cents(1), Money::ZERO));
}

#[test]
fn a_call_may_be_clamped_where_each_cap_in_its_way_says_so() {
    let clamp = |name: &str, limit| Cap {
        clamp: true,
        kind: CapKind::Strict,
        ..cap(name, limit)
    };
    let ann = caller("ann");
    let fits = |caps: &mut Caps, smaller| {
        caps.fits_if_clamped(NOON, &subject(&ann), amounts(5, 50), amounts(5, smaller))
    };
    let mut caps = Caps::new(vec![clamp("wide", cents(100)), clamp("narrow", cents(30))]);
    spend_at(&mut caps, NOON, "ann", 2);
    refused(reserve(&mut caps, "ann", 5));
    assert!(fits(&mut caps, 28) && !fits(&mut caps, 29));
    let mut caps = Caps::new(vec![clamp("soft", cents(30)), cap("hard", cents(1))]);
    assert!(!fits(&mut caps, 1));
    let mut caps = Caps::new(vec![clamp("soft", cents(30)), cap("hard", cents(5))]);
    assert!(fits(&mut caps, 30));
}

#[test]
fn only_a_cap_that_reserves_the_expected_and_refuses_follows_a_stream() {
    let soft = OnExceed::Warn;
    for (kind, on_exceed, follows) in [
        (CapKind::Expected, OnExceed::Block, true),
        (CapKind::Strict, OnExceed::Block, false),
        (CapKind::Expected, soft, false),
    ] {
        let mut caps = Caps::new(vec![Cap {
            kind,
            on_exceed,
            ..cap("all", cents(100))
        }]);
        let ticket = admitted(reserve(&mut caps, "ann", 5));
        assert_eq!(caps.follows(ticket), follows);
        caps.release(ticket);
        assert!(!caps.follows(ticket));
    }
}

#[test]
fn a_cap_that_downgrades_names_the_model_and_lets_it_pass() {
    let falls = Cap {
        on_exceed: OnExceed::Downgrade,
        downgrade_to: "claude-haiku-5-5".to_owned(),
        ..cap("falls", cents(10))
    };
    let mut caps = Caps::new(vec![falls, cap("hard", cents(20))]);
    spend_at(&mut caps, NOON, "ann", 10);
    let ann = caller("ann");
    match reserve(&mut caps, "ann", 15) {
        Decision::Downgrade { to, exceeded } => {
            assert_eq!(
                (to.as_str(), exceeded.cap.as_str()),
                ("claude-haiku-5-5", "falls")
            );
        }
        other => panic!("{other:?}"),
    }
    match caps.reserve_downgraded(NOON, &subject(&ann), amounts(1, 1)) {
        Decision::Admitted { warnings, .. } => assert_eq!(warnings.len(), 1),
        other => panic!("{other:?}"),
    }
    let exceeded = refused(caps.reserve_downgraded(NOON, &subject(&ann), amounts(10, 10)));
    assert_eq!(exceeded.cap, "hard");
}

#[test]
fn windows_are_named_as_in_the_configuration() {
    for text in [
        "5m",
        "hour",
        "day",
        "week",
        "month",
        "total",
        "rolling 24h",
        "rolling 90s",
        "rolling 7d",
    ] {
        let window: Window = serde_json::from_value(text.into()).unwrap();
        assert_eq!(window.to_string(), text);
    }
    for text in [
        "",
        "5 m",
        "rolling",
        "rolling 59s",
        "rolling 367d",
        "rolling h",
        "rolling 1y",
        "rolling -1h",
        "Day",
    ] {
        assert!(Window::try_from(text.to_owned()).is_err(), "{text}");
    }
    let day = Window::try_from("rolling 1d".to_owned()).unwrap();
    assert_eq!(Some(day), Window::Day.rolling());
    assert_eq!(day.to_string(), "rolling 24h");
}
