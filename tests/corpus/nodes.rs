//! Two nodes on one PostgreSQL ledger, between which conversations move.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir::process::config::{Cache, CacheMode, Config, Ledger};
use weir_tests::PATIENCE;

#[path = "../../interceptor/tests/postgres/server.rs"]
#[expect(dead_code, reason = "the tests of the ledger itself use the rest")]
mod server;

use server::Server;

/// What the nodes share.
pub(crate) struct Shared {
    server: Server,
    secrets: TempDir,
}

impl Shared {
    pub(crate) fn start() -> Self {
        let secrets = TempDir::new().unwrap();
        let secret = secrets.path().join("shared");
        fs::write(&secret, [7; 32]).unwrap();
        fs::set_permissions(secret, fs::Permissions::from_mode(0o440)).unwrap();
        Self {
            server: Server::start(),
            secrets,
        }
    }

    /// The configuration of each node.
    pub(crate) fn config(&self) -> Config {
        Config {
            cache: Cache {
                mode: CacheMode::Rewrite,
                secret_file: Some(self.secrets.path().join("shared")),
                ..Cache::default()
            },
            ledger: Ledger {
                url: self.server.url(),
                ..Ledger::default()
            },
            ..Config::default()
        }
    }

    /// Until both nodes are connected: a call does not wait for that.
    pub(crate) async fn connected(&self) {
        let until = Instant::now() + PATIENCE;
        while self.server.number(CONNECTED).await < 2 {
            assert!(Instant::now() < until, "expected two connections");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

const CONNECTED: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir'
    AND state = 'idle' AND query LIKE '%FROM weir.conversation WHERE key%'";
const PAUSE: Duration = Duration::from_millis(20);
