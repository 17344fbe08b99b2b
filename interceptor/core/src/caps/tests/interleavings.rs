//! Whatever the order of calls, a cap is never exceeded by more than the stated bound.

use proptest::prelude::*;

use super::*;

/// What happens next. Calls are told by their place among those in flight.
#[derive(Clone, Debug)]
enum Step {
    /// A call is made, that will cost so many cents more or less than is expected.
    Call { user: u8, expected: i64, error: i64 },
    /// The stream of a call grows: so many cents were seen to be spent by it, or it is ended.
    Grow { place: prop::sample::Index, by: i64 },
    /// A call ends, with what it cost.
    Settle { place: prop::sample::Index },
    /// A call ends and costs nothing.
    Release { place: prop::sample::Index },
    /// A ticket is used that was used before.
    Again { place: prop::sample::Index },
    /// Time passes, or the clock is set back.
    Wait { minutes: i64 },
}

struct Call {
    ticket: Ticket,
    user: u8,
    /// The window in which it was admitted.
    window: i64,
    reserved: Money,
    actual: Money,
}

/// What the caps must hold, kept with other means: one list of all calls.
#[derive(Default)]
struct Model {
    in_flight: Vec<Call>,
    settled: Vec<Call>,
}

impl Model {
    fn spent(&self, window: i64, user: Option<u8>) -> Money {
        let calls = self.settled.iter().filter(|call| call.is_of(window, user));
        calls.map(|call| call.actual).sum()
    }

    fn reserved(&self, window: i64, user: Option<u8>) -> Money {
        let calls = self
            .in_flight
            .iter()
            .filter(|call| call.is_of(window, user));
        calls.map(|call| call.reserved).sum()
    }

    /// The bound of the module's documentation, beyond the limit.
    fn bound(&self, window: i64, user: Option<u8>) -> Money {
        let calls = self
            .in_flight
            .iter()
            .filter(|call| call.is_of(window, user));
        calls
            .map(|call| call.actual.saturating_sub_to_zero(call.reserved))
            .sum()
    }
}

impl Call {
    fn is_of(&self, window: i64, user: Option<u8>) -> bool {
        self.window == window && user.is_none_or(|user| user == self.user)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = any::<prop::sample::Index>;
    let step = prop_oneof![
        10 => (0u8..4, 0i64..40, -40i64..40)
            .prop_map(|(user, expected, error)| Step::Call { user, expected, error }),
        6 => (place(), 0i64..20).prop_map(|(place, by)| Step::Grow { place, by }),
        6 => place().prop_map(|place| Step::Settle { place }),
        2 => place().prop_map(|place| Step::Release { place }),
        1 => place().prop_map(|place| Step::Again { place }),
        1 => (-30i64..90).prop_map(|minutes| Step::Wait { minutes }),
    ];
    prop::collection::vec(step, 0..400)
}

/// Two caps by the hour, one for all and one for each user, and the model beside them.
struct Walk {
    kind: CapKind,
    caps: Caps,
    model: Model,
    now_ms: i64,
    /// The hour in force.
    window: i64,
    /// What the limits may be exceeded by, as of the last admission: for all, then by user.
    bounds: [Money; 5],
}

impl Walk {
    fn new(kind: CapKind) -> Self {
        let all = Cap {
            window: Window::Hour,
            kind,
            ..cap("all", cents(ALL_LIMIT))
        };
        let per = vec![Dimension::User];
        let each = Cap {
            name: "each".to_owned(),
            per,
            limits: Limits::of_money(cents(EACH_LIMIT)),
            ..all.clone()
        };
        let mut caps = Caps::new(vec![all, each]);
        // No window before this one is opened any more.
        let first = admitted(reserve(&mut caps, "ann", 0));
        caps.release(first);
        let (model, window) = (Model::default(), NOON.div_euclid(HOUR));
        Self {
            kind,
            caps,
            model,
            now_ms: NOON,
            window,
            bounds: [Money::ZERO; 5],
        }
    }

    fn go(&mut self, step: &Step) -> Result<(), TestCaseError> {
        if let Step::Grow { place, by } = step
            && !self.model.in_flight.is_empty()
        {
            let place = place.index(self.model.in_flight.len());
            self.grow(place, cents(*by))?;
        }
        let (caps, model) = (&mut self.caps, &mut self.model);
        match step {
            Step::Call {
                user,
                expected,
                error,
            } => self.call(*user, *expected, *error)?,
            Step::Settle { place } if !model.in_flight.is_empty() => {
                let call = model
                    .in_flight
                    .swap_remove(place.index(model.in_flight.len()));
                caps.settle(call.ticket, Amount::of_call(call.actual, 0));
                model.settled.push(call);
            }
            Step::Release { place } if !model.in_flight.is_empty() => {
                let call = model
                    .in_flight
                    .swap_remove(place.index(model.in_flight.len()));
                caps.release(call.ticket);
            }
            Step::Again { place } if !model.settled.is_empty() => {
                let settled = &model.settled[place.index(model.settled.len())];
                caps.settle(settled.ticket, call(1000));
            }
            Step::Wait { minutes } => self.now_ms += minutes * 60_000,
            Step::Grow { .. } | Step::Settle { .. } | Step::Release { .. } | Step::Again { .. } => {
            }
        }
        self.check_limits()?;
        self.check_states()
    }

    fn call(&mut self, user: u8, expected: i64, error: i64) -> Result<(), TestCaseError> {
        self.window = self.window.max(self.now_ms.div_euclid(HOUR));
        let window = self.window;
        let actual = cents((expected + error).max(0));
        let expected = cents(expected);
        let reserved = match self.kind {
            CapKind::Expected => expected,
            CapKind::Strict => expected.max(actual),
        };
        let fits = |user: Option<u8>, limit: i64| {
            let taken = self.model.spent(window, user) + self.model.reserved(window, user);
            taken < cents(limit) && taken + reserved <= cents(limit)
        };
        let fits = fits(None, ALL_LIMIT) && fits(Some(user), EACH_LIMIT);
        let amounts = Amounts {
            expected: Amount::of_call(expected, 0),
            worst: Amount::of_call(reserved, 0),
        };
        let caller = caller(&user.to_string());
        match self.caps.reserve(self.now_ms, &subject(&caller), amounts) {
            Decision::Admitted { ticket, .. } => {
                prop_assert!(fits, "a call was admitted that does not fit");
                let call = Call {
                    ticket,
                    user,
                    window,
                    reserved,
                    actual,
                };
                self.model.in_flight.push(call);
                self.note_bounds(window, user);
            }
            Decision::Refused(_) | Decision::Downgrade { .. } => {
                prop_assert!(!fits, "a call was refused that fits");
            }
        }
        Ok(())
    }

    /// What a call is seen to have spent is reserved, unless it does not fit: it is ended then, and
    /// the provider bills what it had sent by then and what was on its way, a cent here.
    fn grow(&mut self, place: usize, by: Money) -> Result<(), TestCaseError> {
        self.window = self.window.max(self.now_ms.div_euclid(HOUR));
        let call = &self.model.in_flight[place];
        let (user, window, ticket) = (call.user, call.window, call.ticket);
        let wanted = call.reserved + by;
        let grows = self.kind == CapKind::Expected && by > Money::ZERO;
        let fits = |user: Option<u8>, limit: i64| {
            let taken = self.model.spent(window, user) + self.model.reserved(window, user);
            window != self.window || (taken < cents(limit) && taken + by <= cents(limit))
        };
        let fits = !grows || (fits(None, ALL_LIMIT) && fits(Some(user), EACH_LIMIT));
        let extended = self
            .caps
            .extend(self.now_ms, ticket, Amount::of_call(wanted, 0));
        prop_assert_eq!(extended.is_ok(), fits);
        let call = &mut self.model.in_flight[place];
        match extended {
            Ok(()) if grows => {
                call.reserved = wanted;
                call.actual = call.actual.max(wanted);
                if window == self.window {
                    self.note_bounds(window, user);
                }
            }
            Ok(()) => {}
            Err(_) => {
                let mut call = self.model.in_flight.swap_remove(place);
                call.actual = call.reserved + cents(1);
                self.bounds[0] += cents(1);
                self.bounds[usize::from(user) + 1] += cents(1);
                self.caps.settle(ticket, Amount::of_call(call.actual, 0));
                self.model.settled.push(call);
            }
        }
        Ok(())
    }

    fn note_bounds(&mut self, window: i64, user: u8) {
        self.bounds[0] = self.model.bound(window, None);
        self.bounds[usize::from(user) + 1] = self.model.bound(window, Some(user));
    }

    /// The bounds are from an earlier hour where nothing was admitted since, when nothing is spent
    /// in this one either.
    fn check_limits(&self) -> Result<(), TestCaseError> {
        for (user, bound) in ACCOUNTS.into_iter().zip(self.bounds) {
            let limit = cents(if user.is_none() {
                ALL_LIMIT
            } else {
                EACH_LIMIT
            });
            let spent = self.model.spent(self.window, user);
            prop_assert!(
                spent <= limit + bound,
                "{:?} spent {}, bound {}",
                user,
                spent,
                bound
            );
            if self.kind == CapKind::Strict {
                prop_assert!(spent + self.model.reserved(self.window, user) <= limit);
            }
        }
        Ok(())
    }

    /// The accounts hold what the list of all calls adds up to.
    fn check_states(&self) -> Result<(), TestCaseError> {
        let mut expected = Vec::new();
        for user in ACCOUNTS {
            let spent = self.model.spent(self.window, user);
            let reserved = self.model.reserved(self.window, user);
            if spent + reserved > Money::ZERO {
                let scope = user.map_or_else(|| "all".to_owned(), |user| format!("user={user}"));
                expected.push((scope, spent, reserved));
            }
        }
        let states = self.caps.states(self.window * HOUR).into_iter();
        let found: Vec<_> = states
            .filter(|state| held(state) != (Money::ZERO, Money::ZERO))
            .map(|state| (state.scope, state.spent.money, state.reserved.money))
            .collect();
        prop_assert_eq!(found, expected);
        Ok(())
    }
}

fn walk(kind: CapKind, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut walk = Walk::new(kind);
    for step in steps {
        walk.go(step)?;
    }
    prop_assert_eq!(walk.caps.in_flight(), walk.model.in_flight.len());
    Ok(())
}

const ALL_LIMIT: i64 = 300;
const EACH_LIMIT: i64 = 120;
const ACCOUNTS: [Option<u8>; 5] = [None, Some(0), Some(1), Some(2), Some(3)];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_expected_cap_is_exceeded_by_the_error_of_calls_in_flight_at_most(steps in steps()) {
        walk(CapKind::Expected, &steps)?;
    }

    #[test]
    fn a_strict_cap_is_never_exceeded(steps in steps()) {
        walk(CapKind::Strict, &steps)?;
    }
}

#[test]
fn thousands_of_calls_at_once_fill_a_cap_to_its_limit_and_no_further() {
    let mut caps = Caps::new(vec![cap("all", cents(5000))]);
    let mut tickets = Vec::new();
    for _ in 0..10_000 {
        if let Decision::Admitted { ticket, .. } = reserve(&mut caps, "ann", 1) {
            tickets.push(ticket);
        }
    }
    assert_eq!(tickets.len(), 5000);
    // The answers come in another order, and each costs what was expected.
    for place in 0..tickets.len() {
        caps.settle(tickets[place * 1999 % tickets.len()], call(1));
    }
    let state = &caps.states(NOON)[0];
    assert_eq!(held(state), (cents(5000), Money::ZERO));
}
