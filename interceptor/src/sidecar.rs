//! The data path's handle: a placeholder until it is merged.

use std::sync::Arc;
use std::time::Duration;

use weir_certs::Authority;

use crate::capture::Capture;
use crate::process::config::Live;
use crate::process::state::StateDirectory;
use crate::run::summary::Summary;

/// What the sidecar works with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub live: Arc<Live>,
    /// Where connections come from.
    pub capture: Arc<Capture>,
    /// Who signs leaves.
    pub authority: Authority,
    /// Where the ledger is.
    pub state: StateDirectory,
}

/// The running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    _parts: Parts,
}

impl Sidecar {
    /// Starts serving; called inside the runtime.
    ///
    /// # Errors
    /// The ledger cannot be opened.
    pub async fn start(parts: Parts) -> anyhow::Result<Self> {
        tokio::task::yield_now().await;
        Ok(Self { _parts: parts })
    }

    /// What came of the calls so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::default()
    }

    /// For `/api/v1/status`: `in_flight`, `caps`, `bypasses`.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        serde_json::json!({"in_flight": 0, "caps": [], "bypasses": []})
    }

    /// For `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> String {
        String::new()
    }

    /// Waits until what is in flight has ended and is in the ledger.
    pub async fn drain(&self, _timeout: Duration) {
        tokio::task::yield_now().await;
    }
}
