//! Trust that fails on either side.

use weir::process::config::Config;
use weir_tests::{Scripted, Wire, World, soon};

use super::{HOST, closed};

/// Waits until Weir has noted that a client rejected its CA, which it hears of after the client knows.
async fn noted(world: &World, times: u64) {
    soon("a rejected CA to be noted", async {
        while world.refused("ca_rejected") < times {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_rejects_the_ca_fails_once_and_is_then_passed_through() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let pinned = || world.tls_trusting(server.addr, HOST, &server.ca_pem);
    assert!(pinned().await.is_err(), "the leaf is of the local CA");
    server.accept().await;
    noted(&world, 1).await;
    let mut client = Wire::new(pinned().await.unwrap());
    let mut upstream = server.accept().await;
    client.send("GET /as/it/is HTTP/1.1\r\n\r\n").await;
    assert_eq!(upstream.head().await, "GET /as/it/is HTTP/1.1\r\n\r\n");
    assert_eq!(world.bypassed("client_rejects_ca"), 1);
    assert_eq!(world.refused("ca_rejected"), 1);
    // The first one is told, too: there may be no other.
    let told = world.sidecar.summary().not_inspected;
    assert_eq!(told, [("client_rejects_ca".to_owned(), 2)]);
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
        noted(&world, 1).await;
    }
    assert_eq!(world.refused("client_rejects_ca"), 4);
    assert_eq!(world.bypassed("client_rejects_ca"), 0);
    let told = world.sidecar.summary().not_inspected;
    assert_eq!(told, [("client_rejects_ca".to_owned(), 5)], "each of them");
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
