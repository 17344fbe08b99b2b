//! Every bound of Weir, with its unit and its reason. Reaching one is counted where it is applied.

use std::time::Duration;

/// Bytes of a request body that Weir holds to read it; a larger one is forwarded unread or refused.
/// Anthropic takes 32 MB per request; more than that is no call it could answer.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// Bytes of all request bodies held at the same time, over all connections.
pub const BODIES_BYTES_MAX: usize = 512 << 20;
/// How long an application may stall in the middle of a request's body.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection of an application may wait for its next request; servers close theirs
/// after one to six minutes, so that clients are prepared for it.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a client's first flight in which the ClientHello must be complete. Post-quantum key
/// shares take about 2 KiB; TLS allows one handshake message of 64 KiB in practice.
pub const CLIENT_HELLO_BYTES_MAX: usize = 64 << 10;
/// How long a client may take to send its ClientHello before it is spliced as "no hello".
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of applications served at the same time; more wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 4096;
/// Pending connections that the kernel queues on a listener.
pub const LISTEN_BACKLOG: i32 = 1024;
/// How long dialling the original destination may take. Longer than clients wait (the SDKs give
/// up after 5 to 10 s), so that it is the client who decides.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one of several addresses of a name may take before the next is tried.
pub const DIAL_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a provider may leave what was sent to it unacknowledged: then the connection is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How often an upstream HTTP/2 connection is asked whether it lives, and a silent TCP one.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer to that may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take, on either side.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle upstream connection is kept: well below the minute after which common front
/// ends of providers close theirs, which would cost a failed request.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Age of the last heartbeat from which on Weir counts as hung: connections then go direct, or are
/// refused, and `/readyz` says no. As long as "within a second" allows.
pub const HEARTBEAT_AGE_MAX: Duration = weir_probes::STALE_AFTER;
/// How often a heartbeat is given: four may come late before Weir counts as hung.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// How long exchanges in flight may take to end after the command ended.
pub const RUN_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long tasks may take to stop after that, before they are left behind.
pub const RUN_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that the admin server serves at the same time.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// How long a request to the admin server may take to arrive.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the configuration file is looked at for a change.
pub const CONFIG_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of a configuration file; a larger one is a mistake.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an imported price list, or of a file to import: the largest that is known has 3 MB.
pub const PRICE_LIST_BYTES_MAX: u64 = 32 << 20;
/// Bytes of one log file; what comes after is dropped and counted at the end of the file.
pub const LOG_FILE_BYTES_MAX: u64 = 32 << 20;
/// Log files of earlier processes that are kept.
pub const LOG_FILES_MAX: usize = 10;
/// How long nft may take to answer at the start, in milliseconds.
pub const PACKET_FILTER_TIMEOUT_MS: u16 = 5_000;
/// How long the admin server waits after it could not accept a connection.
pub const ADMIN_RETRY_DELAY: Duration = Duration::from_secs(1);
