//! The redirect, attempt by attempt: what is redirected, what is not and why, and what happens when Weir dies.

mod life;
mod world;

use std::{net::SocketAddr, time::Duration};

use nix::time::{ClockId, clock_gettime};
use weir_probes::{Fail, Flow, Reason, Redirect};

use world::{Application, Namespace, Outcome, Setup, UID, World};

#[test]
fn this_machine_can_redirect() {
    Redirect::probe().unwrap();
}

/// The ways in which a program may connect, and what it asks for.
const REDIRECTED: [(&str, &str); 6] = [
    ("connect tcp4 192.0.2.7:443", "192.0.2.7:443"),
    ("connect tcp4 192.0.2.7:8443", "192.0.2.7:8443"),
    (
        "connect tcp6 [::ffff:192.0.2.7]:443",
        "[::ffff:192.0.2.7]:443",
    ),
    ("connect tcp6 [2001:db8::7]:443", "[2001:db8::7]:443"),
    ("connect tcp4 192.0.2.7:443 nonblocking", "192.0.2.7:443"),
    (
        "connect tcp4 192.0.2.7:443 bind=127.0.0.5:0",
        "192.0.2.7:443",
    ),
];

#[test]
fn a_redirected_program_sees_the_peer_that_it_asked_for() {
    let mut world = World::new(Setup::ALL);
    for (command, destination) in REDIRECTED {
        match world.attempt(command) {
            Outcome::Redirected { sees, peer } => {
                assert_eq!(sees.peer, destination.parse().unwrap(), "{command}");
                assert_eq!(sees.local.ip().to_canonical(), peer.ip(), "{command}");
                assert_eq!(sees.local.port(), peer.port(), "{command}");
            }
            other => panic!("{command}: {other:?}"),
        }
    }
    assert_eq!(world.count(Reason::Redirected), 6);
}

#[test]
fn the_flow_says_who_connected_to_where_and_when_and_is_taken_once() {
    let mut world = World::new(Setup::ALL);
    for (command, destination) in REDIRECTED {
        let before = monotonic_ns();
        let (sees, peer) = match world.attempt(command) {
            Outcome::Redirected { sees, peer } => (sees, peer),
            other => panic!("{command}: {other:?}"),
        };
        let flow = world
            .redirect
            .take_flow(world.namespace.cookie, peer)
            .unwrap();
        let destination: SocketAddr = destination.parse().unwrap();
        let expected = Flow {
            destination: SocketAddr::new(destination.ip().to_canonical(), destination.port()),
            socket_cookie: sees.cookie,
            cgroup_id: world.cgroup.id(),
            tgid: world.application.pid(),
            uid: UID,
            connected_at_ktime_ns: flow.connected_at_ktime_ns,
        };
        assert_eq!(flow, expected, "{command}");
        assert!(
            (before..monotonic_ns()).contains(&flow.connected_at_ktime_ns),
            "{command}"
        );
        assert_eq!(
            world.redirect.take_flow(world.namespace.cookie, peer),
            None,
            "{command}"
        );
    }
}

#[test]
fn a_direct_call_to_the_listener_has_no_flow() {
    let mut world = World::new(Setup::ALL);
    let listener = world.namespace.ours[0].local_addr().unwrap();
    let outcome = world.attempt(&format!("connect tcp4 {listener}"));
    let peer = outcome.redirected_from();
    assert_eq!(world.redirect.take_flow(world.namespace.cookie, peer), None);
    assert_eq!(world.count(Reason::Redirected), 0);
}

/// What is not redirected.
struct Case {
    setup: Setup,
    kind: &'static str,
    destination: &'static str,
    reason: Reason,
    /// Whether a namespace that fails closed refuses it.
    refused: bool,
}

const fn passed(setup: Setup, destination: &'static str, reason: Reason) -> Case {
    let kind = if destination.as_bytes()[0] == b'[' {
        "tcp6"
    } else {
        "tcp4"
    };
    Case {
        setup,
        kind,
        destination,
        reason,
        refused: false,
    }
}

const fn refused(setup: Setup, destination: &'static str, reason: Reason) -> Case {
    Case {
        refused: true,
        ..passed(setup, destination, reason)
    }
}

const ALL: Setup = Setup::ALL;
const V4: &str = "192.0.2.7:443";
const V6: &str = "[2001:db8::7]:443";

const NOT_REDIRECTED: [Case; 9] = [
    passed(
        Setup {
            enrolled: false,
            ..ALL
        },
        V4,
        Reason::NotEnrolled,
    ),
    passed(ALL, "192.0.2.7:80", Reason::OtherPort),
    passed(ALL, "127.0.0.1:443", Reason::LocalDestination),
    passed(ALL, "[::ffff:127.0.0.1]:443", Reason::LocalDestination),
    refused(Setup { v6: false, ..ALL }, V6, Reason::NoV6Listener),
    refused(
        Setup {
            listening: false,
            ..ALL
        },
        V4,
        Reason::NoListener,
    ),
    refused(
        Setup {
            tagged: false,
            ..ALL
        },
        V4,
        Reason::UntaggedListener,
    ),
    refused(
        Setup {
            tagged: false,
            ..ALL
        },
        V6,
        Reason::UntaggedListener,
    ),
    refused(
        Setup {
            beating: false,
            ..ALL
        },
        V4,
        Reason::HeartbeatStale,
    ),
];

#[test]
fn failing_open_what_cannot_be_redirected_goes_direct_and_its_reason_is_counted() {
    for Case {
        setup,
        kind,
        destination,
        reason,
        ..
    } in NOT_REDIRECTED
    {
        let mut world = World::new(setup);
        let outcome = world.attempt(&format!("connect {kind} {destination}"));
        assert!(outcome.is_direct_to(destination), "{reason:?}: {outcome:?}");
        assert_eq!(world.count(reason), 1, "{reason:?}");
        assert_eq!(world.count(Reason::RefusedClosed), 0, "{reason:?}");
    }
}

#[test]
fn failing_closed_what_should_be_redirected_and_cannot_be_is_refused() {
    for Case {
        setup,
        kind,
        destination,
        reason,
        refused,
    } in NOT_REDIRECTED
    {
        let mut world = World::new(Setup {
            fail: Fail::Closed,
            ..setup
        });
        let outcome = world.attempt(&format!("connect {kind} {destination}"));
        let as_expected = if refused {
            outcome.is_refused()
        } else {
            outcome.is_direct_to(destination)
        };
        assert!(as_expected, "{reason:?}: {outcome:?}");
        assert_eq!(world.count(reason), 1, "{reason:?}");
        assert_eq!(
            world.count(Reason::RefusedClosed),
            u64::from(refused),
            "{reason:?}"
        );
    }
}

#[test]
fn a_socket_bound_to_a_device_is_not_sent_to_loopback_where_it_would_hang() {
    for (fail, kind, destination) in [
        (Fail::Open, "tcp4", "192.0.2.7:443"),
        (Fail::Open, "tcp6", "[2001:db8::7]:443"),
        (Fail::Closed, "tcp4", "192.0.2.7:443"),
    ] {
        let mut world = World::new(Setup { fail, ..Setup::ALL });
        let outcome = world.attempt(&format!("connect {kind} {destination} device=lo"));
        match fail {
            Fail::Open => assert!(outcome.is_direct_to(destination), "{outcome:?}"),
            Fail::Closed => assert!(outcome.is_refused(), "{outcome:?}"),
        }
        assert_eq!(world.count(Reason::DeviceBound), 1);
    }
}

/// UDP that could be QUIC, connected and not.
const QUIC: [&str; 6] = [
    "connect udp4 192.0.2.7:443",
    "connect udp6 [2001:db8::7]:443",
    "connect udp6 [::ffff:192.0.2.7]:443",
    "send udp4 192.0.2.7:443",
    "send udp6 [2001:db8::7]:443",
    "send udp6 [::ffff:192.0.2.7]:443",
];

#[test]
fn quic_is_refused_at_once_where_tcp_would_be_redirected() {
    let mut world = World::new(Setup::ALL);
    for command in QUIC {
        let outcome = world.attempt(command);
        assert!(outcome.is_refused(), "{command}: {outcome:?}");
    }
    assert_eq!(world.count(Reason::QuicRefused), 6);
    assert_eq!(world.count(Reason::RefusedClosed), 0);
}

#[test]
fn quic_passes_where_tcp_would_go_direct() {
    let mut world = World::new(Setup {
        beating: false,
        ..Setup::ALL
    });
    for command in QUIC {
        world.application.ask(command).unwrap();
    }
    assert_eq!(world.count(Reason::HeartbeatStale), 6);
}

#[test]
fn udp_to_other_ports_is_left_alone() {
    let mut world = World::new(Setup::ALL);
    for command in [
        "connect udp4 192.0.2.7:53",
        "send udp4 192.0.2.7:53",
        "send udp6 [2001:db8::7]:53",
    ] {
        world.application.ask(command).unwrap();
    }
    assert_eq!(world.count(Reason::OtherPort), 3);
}

#[test]
fn a_socket_used_again_for_a_direct_connection_is_not_told_the_old_story() {
    let mut world = World::new(Setup::ALL);
    world
        .attempt("connect tcp4 192.0.2.7:443")
        .redirected_from();
    let outcome = world.attempt("again 192.0.2.7:80");
    assert!(outcome.is_direct_to("192.0.2.7:80"), "{outcome:?}");
    world.attempt("again 192.0.2.7:8443").redirected_from();
    let peer = world.attempt("again 192.0.2.7:443").redirected_from();
    let flow = world
        .redirect
        .take_flow(world.namespace.cookie, peer)
        .unwrap();
    assert_eq!(flow.destination, "192.0.2.7:443".parse().unwrap());
}

#[test]
fn two_namespaces_that_use_the_same_local_address_and_port_do_not_mix() {
    let mut world = World::new(Setup::ALL);
    let mut other = Namespace::enter();
    other.join(&world.redirect, Setup::ALL);
    let mut neighbour = Application::start();
    world.cgroup.add(neighbour.pid());

    let peer = world
        .attempt("connect tcp4 192.0.2.7:443 bind=127.0.0.1:45678")
        .redirected_from();
    let answer = neighbour.ask("connect tcp4 192.0.2.7:8443 bind=127.0.0.1:45678");
    assert_eq!(other.outcome(answer).redirected_from(), peer);

    let take = |cookie| world.redirect.take_flow(cookie, peer).unwrap();
    let (first, second) = (take(world.namespace.cookie), take(other.cookie));
    assert_eq!(
        (first.destination.port(), first.tgid),
        (443, world.application.pid())
    );
    assert_eq!(
        (second.destination.port(), second.tgid),
        (8443, neighbour.pid())
    );
}

/// Nanoseconds of the clock that the kernel programs read.
fn monotonic_ns() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}
