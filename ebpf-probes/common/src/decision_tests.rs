//! The whole table of the decision: every combination of facts, against the rules written as a list.

extern crate std;

use core::cell::RefCell;
use core::net::IpAddr;
use std::{string::String, vec::Vec};

use super::*;
use crate::PORTS_MAX;

/// Facts as told, and the questions that were asked.
#[derive(Clone, Debug)]
struct Told {
    netns: Option<Netns>,
    is_own_socket: bool,
    is_device_bound: bool,
    listener: ListenerState,
    heartbeat_age_ns: u64,
    asked: RefCell<Vec<&'static str>>,
}

impl Told {
    fn note(&self, question: &'static str) {
        self.asked.borrow_mut().push(question);
    }
}

impl Facts for Told {
    fn netns(&self) -> Option<Netns> {
        self.note("netns");
        self.netns
    }

    fn is_own_socket(&self) -> bool {
        self.note("own socket");
        self.is_own_socket
    }

    fn is_device_bound(&self) -> bool {
        self.note("device");
        self.is_device_bound
    }

    fn listener(&self, listener: Listener) -> ListenerState {
        assert!(matches!(
            listener,
            Listener::V4(PORT4) | Listener::V6(PORT6)
        ));
        self.note("listener");
        self.listener
    }

    fn heartbeat_age_ns(&self) -> u64 {
        self.note("heartbeat");
        self.heartbeat_age_ns
    }
}

/// A TCP connection to a provider from an enrolled namespace with everything in order.
fn in_order() -> (Attempt, Told) {
    let attempt = Attempt {
        protocol: Protocol::Tcp,
        destination: address("192.0.2.7"),
        port: 443,
    };
    let told = Told {
        netns: Some(Netns {
            port4: PORT4,
            port6: PORT6,
            flags: 0,
        }),
        is_own_socket: false,
        is_device_bound: false,
        listener: ListenerState::Ours,
        heartbeat_age_ns: 0,
        asked: RefCell::default(),
    };
    (attempt, told)
}

fn config() -> Config {
    let mut ports = [0; PORTS_MAX];
    ports[0] = 443;
    ports[PORTS_MAX - 1] = 8443;
    Config {
        stale_after_ns: STALE_AFTER,
        ports,
    }
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

#[test]
fn with_everything_in_order_tcp_is_redirected_to_the_listener_of_its_family() {
    for (destination, port, listener) in [
        ("192.0.2.7", 443, Listener::V4(PORT4)),
        ("::ffff:192.0.2.7", 443, Listener::V4(PORT4)),
        ("2001:db8::7", 443, Listener::V6(PORT6)),
        ("192.0.2.7", 8443, Listener::V4(PORT4)),
    ] {
        let (attempt, told) = in_order();
        let attempt = Attempt {
            destination: address(destination),
            port,
            ..attempt
        };
        assert_eq!(
            decide(&attempt, &config(), &told),
            Verdict::Redirect(listener),
            "{destination}:{port}"
        );
    }
}

#[test]
fn a_connection_that_is_none_of_our_business_costs_no_question_to_the_kernel() {
    for port in [0, 80, 53, 444, 65_535] {
        let (attempt, told) = in_order();
        let verdict = decide(&Attempt { port, ..attempt }, &config(), &told);
        assert_eq!(verdict, Verdict::Pass(Reason::OtherPort), "{port}");
        assert!(told.asked.borrow().is_empty());
    }
}

#[test]
fn an_unenrolled_namespace_costs_one_look_up_and_never_the_socket_table() {
    let (attempt, told) = in_order();
    let told = Told {
        netns: None,
        ..told
    };
    assert_eq!(
        decide(&attempt, &config(), &told),
        Verdict::Pass(Reason::NotEnrolled)
    );
    assert_eq!(*told.asked.borrow(), ["netns"]);
}

#[test]
fn a_heartbeat_is_fresh_up_to_the_limit_and_stale_beyond() {
    for (age, verdict) in [
        (STALE_AFTER, Verdict::Redirect(Listener::V4(PORT4))),
        (STALE_AFTER + 1, Verdict::Pass(Reason::HeartbeatStale)),
        (u64::MAX, Verdict::Pass(Reason::HeartbeatStale)),
    ] {
        let (attempt, told) = in_order();
        let told = Told {
            heartbeat_age_ns: age,
            ..told
        };
        assert_eq!(decide(&attempt, &config(), &told), verdict, "{age}");
    }
}

/// The rules in the order in which they apply: the first whose condition holds gives the reason. `true` marks those
/// that a namespace which fails closed turns into a refusal.
type Rule = (Reason, bool, fn(&Attempt, &Told) -> bool);

const RULES: [Rule; 9] = [
    (Reason::OtherPort, false, |attempt, _| attempt.port != 443),
    (Reason::NotEnrolled, false, |_, told| told.netns.is_none()),
    (Reason::OwnSocket, false, |_, told| told.is_own_socket),
    (Reason::LocalDestination, false, |attempt, _| {
        attempt.destination.is_local()
    }),
    (Reason::DeviceBound, true, |_, told| told.is_device_bound),
    (Reason::NoV6Listener, true, |attempt, told| {
        attempt.destination.v4().is_none() && told.netns.is_some_and(|netns| netns.port6 == 0)
    }),
    (Reason::NoListener, true, |_, told| {
        told.listener == ListenerState::Absent
    }),
    (Reason::UntaggedListener, true, |_, told| {
        told.listener == ListenerState::Foreign
    }),
    (Reason::HeartbeatStale, true, |_, told| {
        told.heartbeat_age_ns > STALE_AFTER
    }),
];

#[test]
fn every_combination_of_facts_follows_the_rules_in_their_order() {
    let mut combinations = 0;
    for_each_combination(|attempt, told| {
        let closed = told.netns.is_some_and(|netns| netns.fails_closed());
        let v6 = attempt.destination.v4().is_none();
        let expected = match RULES.iter().find(|(_, _, holds)| holds(attempt, told)) {
            Some((reason, true, _)) if closed => Verdict::Refuse(*reason),
            Some((reason, ..)) => Verdict::Pass(*reason),
            None if attempt.protocol == Protocol::Udp => Verdict::Refuse(Reason::QuicRefused),
            None if v6 => Verdict::Redirect(Listener::V6(PORT6)),
            None => Verdict::Redirect(Listener::V4(PORT4)),
        };
        let found = decide(attempt, &config(), told);
        assert_eq!(found, expected, "{attempt:?} {told:?}");
        combinations += 1;
    });
    assert_eq!(combinations, 2 * 2 * 6 * 5 * 2 * 2 * 3 * 2);
}

fn for_each_combination(mut check: impl FnMut(&Attempt, &Told)) {
    let destinations = [
        "192.0.2.7",
        "127.0.0.1",
        "169.254.169.254",
        "2001:db8::7",
        "::1",
        "fe80::1",
    ]
    .map(address);
    let namespaces = [
        None,
        Some((PORT6, 0)),
        Some((0, 0)),
        Some((PORT6, Netns::FAIL_CLOSED)),
        Some((0, Netns::FAIL_CLOSED)),
    ]
    .map(|entry| {
        entry.map(|(port6, flags)| Netns {
            port4: PORT4,
            port6,
            flags,
        })
    });
    let listeners = [
        ListenerState::Absent,
        ListenerState::Foreign,
        ListenerState::Ours,
    ];
    // Every digit of a number in mixed radix picks one alternative of one fact.
    for number in 0.. {
        let mut rest: usize = number;
        let mut pick = |alternatives: usize| {
            let picked = rest % alternatives;
            rest /= alternatives;
            picked
        };
        let attempt = Attempt {
            protocol: [Protocol::Tcp, Protocol::Udp][pick(2)],
            port: [443, 80][pick(2)],
            destination: destinations[pick(6)],
        };
        let told = Told {
            netns: namespaces[pick(5)],
            is_own_socket: pick(2) == 1,
            is_device_bound: pick(2) == 1,
            listener: listeners[pick(3)],
            heartbeat_age_ns: [0, STALE_AFTER + 1][pick(2)],
            asked: RefCell::default(),
        };
        if rest > 0 {
            return;
        }
        check(&attempt, &told);
    }
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    let mut names: Vec<String> = Reason::ALL.map(|reason| reason.name().into()).into();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

const PORT4: u16 = 40_004;
const PORT6: u16 = 40_006;
const STALE_AFTER: u64 = 1_000_000_000;
