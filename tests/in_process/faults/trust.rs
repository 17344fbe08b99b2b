//! Trust that fails on either side.

use weir::process::config::Config;
use weir_tests::{Scripted, Wire, World};

use super::{HOST, closed};

/// How often a client tries again that was rejected.
const TRIES_MAX: usize = 20;

#[tokio::test]
async fn a_client_that_rejects_the_ca_fails_once_and_is_then_passed_through() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let pinned = || world.tls_trusting(server.addr, HOST, &server.ca_pem);
    assert!(pinned().await.is_err(), "the leaf is of the local CA");
    server.accept().await;
    // Remembered by the time that the client has seen the failure, or a moment later.
    let mut passed = None;
    for _ in 0..TRIES_MAX {
        passed = passed.or(pinned().await.ok());
        if passed.is_some() {
            break;
        }
    }
    let mut client = Wire::new(passed.expect("a connection that is passed through"));
    let mut upstream = server.accept().await;
    client.send("GET /as/it/is HTTP/1.1\r\n\r\n").await;
    assert_eq!(upstream.head().await, "GET /as/it/is HTTP/1.1\r\n\r\n");
    assert_eq!(world.bypassed("client_rejects_ca"), 1);
    assert!(world.refused("ca_rejected") >= 1);
    // The first one is told, too: there may be no other.
    let told = world.sidecar.summary().not_inspected;
    let counted = told
        .iter()
        .find(|(reason, _)| reason == "client_rejects_ca");
    assert!(counted.is_some_and(|(_, count)| *count >= 2), "{told:?}");
    // The other hosts of the same program are still inspected.
    world.http1(server.addr, "api.openai.com").await;
    world.no_more_records().await;
}

#[tokio::test]
async fn a_client_that_rejects_the_ca_is_refused_where_nothing_may_go_unread() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], closed());
    for _ in 0..5 {
        let failed = world.tls_trusting(server.addr, HOST, &server.ca_pem).await;
        assert!(failed.is_err());
    }
    assert!(world.refused("client_rejects_ca") >= 1);
    assert_eq!(world.bypassed("client_rejects_ca"), 0);
}

#[tokio::test]
async fn a_provider_that_is_not_trusted_here_is_left_to_the_client_to_judge() {
    let server = Scripted::http1().await;
    // Of another CA.
    let world = World::start(&[], Config::default());
    let stream = world.tls_trusting(server.addr, HOST, &server.ca_pem).await;
    let mut client = Wire::new(stream.unwrap());
    let mut upstream = server.accept().await;
    client.send("hello\r\n\r\n").await;
    assert_eq!(upstream.head().await, "hello\r\n\r\n");
    assert_eq!(world.bypassed("upstream_untrusted"), 1);
    // A client that trusts the local CA alone sees the provider's own certificate, and refuses it.
    assert!(world.tls(server.addr, HOST, &[]).await.is_err());
    let world = World::start(&[], closed());
    let refused = world.tls_trusting(server.addr, HOST, &server.ca_pem).await;
    assert!(refused.is_err());
    assert_eq!(world.refused("upstream_untrusted"), 1);
    assert_eq!(world.bypassed("upstream_untrusted"), 0);
}

#[tokio::test]
async fn a_provider_that_asks_for_a_client_certificate_gets_the_clients_own() {
    let server = Scripted::asking_for_a_client_certificate().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    // Through, whatever becomes of the handshake: the client of this test has no certificate.
    drop(world.tls_trusting(server.addr, HOST, &server.ca_pem).await);
    assert_eq!(world.bypassed("upstream_wants_client_certificate"), 1);
    let world = World::start(&[&server.ca_pem], closed());
    let refused = world.tls_trusting(server.addr, HOST, &server.ca_pem).await;
    assert!(refused.is_err());
    assert_eq!(world.refused("upstream_wants_client_certificate"), 1);
}

#[tokio::test]
async fn the_protocol_of_the_provider_is_the_clients() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (server, expected) in [
        (Scripted::http1().await, Some(&b"http/1.1"[..])),
        (Scripted::http2().await, Some(b"h2")),
        (Scripted::without_alpn().await, None),
    ] {
        let world = World::start(&[&server.ca_pem], Config::default());
        let stream = world.tls(server.addr, HOST, both).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected);
    }
    // What Weir can't read, it does not terminate.
    let server = Scripted::without_alpn().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    assert!(
        world
            .tls(server.addr, HOST, &[b"acme-tls/1"])
            .await
            .is_err()
    );
    assert_eq!(world.bypassed("unreadable_protocol"), 1);
}
