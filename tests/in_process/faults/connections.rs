//! What is no TLS, or no provider's, is spliced byte by byte; and how connections end.

use tokio::net::{TcpListener, TcpStream};
use weir::process::config::Config;
use weir_tests::{PATIENCE, Scripted, Wire, World, soon};

use super::{HOST, closed};

/// A plain TCP server, and one connection through the sidecar to it.
async fn spliced(world: &World, listener: &TcpListener, first: &[u8]) -> [Wire<TcpStream>; 2] {
    let target = listener.local_addr().unwrap();
    let mut client = Wire::new(world.tunnel(target).await);
    if !first.is_empty() {
        client.send(first).await;
    }
    let (server, _) = soon("a connection", listener.accept()).await.unwrap();
    [client, Wire::new(server)]
}

/// A ClientHello of rustls for `name`.
fn hello(name: &str) -> Vec<u8> {
    hello_by(rustls::crypto::aws_lc_rs::default_provider(), name)
}

fn hello_by(provider: rustls::crypto::CryptoProvider, name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn what_is_not_tls_to_a_provider_is_spliced_byte_by_byte_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = closed();
    config.intercept.ignore = vec!["api.groq.com".to_owned()];
    let world = World::start(&[], config);
    let mut torn = hello(HOST);
    // The length of the handshake message: a record that is TLS, and a hello that is none.
    torn[6..9].copy_from_slice(&[0, 0, 1]);
    let without_name = hello("127.0.0.1");
    for (first, reason) in [
        (
            &b"GET / HTTP/1.1\r\nhost: api.anthropic.com\r\n\r\n"[..],
            "not_tls",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "not_tls"),
        (&[0], "not_tls"),
        (&hello("plain.example"), "not_provider"),
        (&hello("api.anthropic.com.evil.example"), "not_provider"),
        (&hello("api.groq.com"), "ignored"),
        (&torn, "broken_hello"),
        (b"\x16\x03\x01\xff\xff\x01garbage", "broken_hello"),
        (&without_name, "no_server_name"),
    ] {
        let before = world.bypassed(reason);
        let [mut client, mut server] = spliced(&world, &listener, first).await;
        assert_eq!(server.exactly(first.len()).await, first, "{reason}");
        for text in ["from the server", "\0\u{1}", &"x".repeat(100_000)] {
            let (sent, found) = tokio::join!(server.try_send(text), client.exactly(text.len()));
            sent.unwrap();
            assert!(found == text.as_bytes());
            let (sent, found) = tokio::join!(client.try_send(text), server.exactly(text.len()));
            sent.unwrap();
            assert!(found == text.as_bytes());
        }
        // Half a close passes, and the other half stays open.
        client.finish().await;
        assert!(server.is_over().await);
        server.send("bye").await;
        assert_eq!(client.exactly(3).await, b"bye");
        server.finish().await;
        assert!(client.is_over().await);
        assert_eq!(world.bypassed(reason), before + 1, "{reason}");
    }
    world.no_more_records().await;
    assert_eq!(world.stored(), []);
}

/// A hello of TLS 1.1 for `HOST`, with one suite.
fn old_hello() -> Vec<u8> {
    let mut hello = b"\x16\x03\x01\x00\x4d\x01\x00\x00\x49\x03\x02".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\x00\x00\x02\xc0\x13\x01\x00\x00\x1e\x00\x17\x00\x00");
    hello.extend(b"\x00\x00\x00\x16\x00\x14\x00\x00\x11");
    hello.extend(HOST.as_bytes());
    hello
}

#[tokio::test]
async fn a_client_that_can_take_no_answer_of_ours_is_left_to_its_provider() {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let is_for_rsa = |suite: &rustls::SupportedCipherSuite| {
        format!("{:?}", suite.suite()).starts_with("TLS_ECDHE_RSA_")
    };
    provider.cipher_suites.retain(is_for_rsa);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for hello in [hello_by(provider, HOST), old_hello()] {
        let world = World::start(&[], Config::default());
        let [_client, mut server] = spliced(&world, &listener, &hello).await;
        assert_eq!(server.exactly(hello.len()).await, hello);
        assert_eq!(world.bypassed("no_common_tls"), 1);
        let world = World::start(&[], closed());
        let target = listener.local_addr().unwrap();
        let mut client = Wire::new(world.tunnel(target).await);
        client.send(&hello).await;
        assert_eq!(client.rest().await.0, b"");
        assert_eq!(world.refused("no_common_tls"), 1);
    }
}

#[tokio::test]
async fn a_hello_in_pieces_is_read_and_one_that_ends_early_is_passed_on() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hello = hello(HOST);
    let target = listener.local_addr().unwrap();
    let mut client = Wire::new(world.tunnel(target).await);
    client.send(&hello[..20]).await;
    client.finish().await;
    let (upstream, _) = soon("a connection", listener.accept()).await.unwrap();
    let (found, _) = Wire::new(upstream).rest().await;
    assert_eq!(found, hello[..20]);
    let mut client = Wire::new(world.tunnel(server.addr).await);
    for byte in &hello {
        client.send([*byte]).await;
    }
    // The leaf of the local CA, which the raw client can't read: a handshake record.
    assert_eq!(client.exactly(1).await, [0x16]);
}

#[tokio::test]
async fn a_client_that_waits_for_the_server_to_speak_gets_its_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start(&[], Config::default());
    let [mut client, mut server] = spliced(&world, &listener, b"").await;
    server.send("220 mail.example ready\r\n").await;
    assert_eq!(client.until(b"\r\n").await, b"220 mail.example ready\r\n");
    assert_eq!(world.bypassed("silent_client"), 1);
}

#[tokio::test]
async fn what_asks_for_no_tunnel_is_told_so() {
    let world = World::start(&[], Config::default());
    for request in [
        "GET http://api.anthropic.com/ HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
    ] {
        let mut client = Wire::new(world.connect().await);
        client.send(request).await;
        let (found, _) = client.rest().await;
        assert!(found.starts_with(b"HTTP/1.1 405 "), "{found:?}");
    }
    let mut client = Wire::new(world.connect().await);
    drop(client.try_send("x".repeat(100 << 10)).await);
    let (found, _) = client.rest().await;
    assert_eq!(found, b"");
}

#[tokio::test]
async fn a_destination_that_refuses_is_a_reset_and_not_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    drop(listener);
    let world = World::start(&[], Config::default());
    for first in [hello(HOST), hello("plain.example"), b"hello".to_vec()] {
        let mut client = Wire::new(world.tunnel(target).await);
        client.send(first).await;
        let (found, error) = client.rest().await;
        assert_eq!(found, b"");
        assert_eq!(error.unwrap().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_passed_through_in_both_directions() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, "api.openai.com").await;
    let request = "GET /v1/live/sessions HTTP/1.1\r\nHost: api.openai.com\r\nConnection: \
        Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    client.send(request).await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.head().await, request);
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    // The first frame comes with the head.
    upstream.send(format!("{answer}first frame")).await;
    assert_eq!(client.head().await, answer);
    assert_eq!(client.exactly(11).await, b"first frame");
    for frame in [&b"\x81\x05hello"[..], b"\x00\xff\r\n\r\n", &[7; 70_000]] {
        client.send(frame).await;
        assert!(upstream.exactly(frame.len()).await == frame);
        upstream.send(frame).await;
        assert!(client.exactly(frame.len()).await == frame);
    }
    drop(client);
    assert!(upstream.is_over().await);
    let record = world.record().await;
    assert_eq!(record.status, Some(101));
    assert_eq!(
        record.cost,
        weir::ledger::Cost::Unknown,
        "it may be a model"
    );
    world.no_more_records().await;
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_lets_a_stream_finish() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut idle = world.http1(server.addr, HOST).await;
    let mut upstream = server.accept().await;
    let mut busy = world.http1(server.addr, HOST).await;
    busy.send(format!("GET /v1/files/x HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    busy.head().await;
    assert_eq!(busy.exactly(5).await, b"12345");
    tokio::join!(world.sidecar.drain(PATIENCE), async {
        assert!(idle.is_over().await);
        upstream.send("67890").await;
        assert_eq!(busy.exactly(5).await, b"67890");
        assert!(busy.is_over().await);
    });
    assert_eq!(world.stored()[0].outcome, "completed");
}
