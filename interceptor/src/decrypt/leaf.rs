//! Server configurations with a leaf certificate for one host, minted once and kept while fresh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use weir_certs::Authority;

use crate::forward::Protocol;

/// Hosts and protocols for which a configuration is kept; a catalogue has some dozens of hosts.
const CONFIGS_MAX: usize = 1024;
/// A leaf is minted anew after this time, long before it expires.
const LEAF_REUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// When each was made, and what.
type Configs = HashMap<(Arc<str>, Protocol), (Instant, Arc<ServerConfig>)>;

/// Mints leaves and keeps the TLS configurations made of them.
pub(crate) struct Leaves {
    authority: Authority,
    configs: Mutex<Configs>,
}

impl Leaves {
    pub(crate) fn new(authority: Authority) -> Self {
        Self {
            authority,
            configs: Mutex::default(),
        }
    }

    /// Whether the CA may sign for `host`.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.authority.covers(host)
    }

    /// The configuration that answers a client of `host` with `protocol`.
    ///
    /// # Errors
    /// In words: the CA does not cover the host, or its key does not sign.
    pub(crate) fn server_config(
        &self,
        host: &Arc<str>,
        protocol: Protocol,
    ) -> Result<Arc<ServerConfig>, String> {
        let key = (Arc::clone(host), protocol);
        let now = Instant::now();
        if let Some((since, config)) = self.lock().get(&key)
            && now.duration_since(*since) < LEAF_REUSE_MAX
        {
            return Ok(Arc::clone(config));
        }
        let leaf = self
            .authority
            .leaf(host)
            .map_err(|error| error.to_string())?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(leaf.chain, leaf.key)
            .map_err(|error| error.to_string())?;
        config.alpn_protocols = protocol.alpn();
        let config = Arc::new(config);
        let mut configs = self.lock();
        if configs.len() >= CONFIGS_MAX {
            let oldest = configs.iter().min_by_key(|(_, (since, _))| *since);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|oldest| configs.remove(&oldest));
        }
        configs.insert(key, (now, Arc::clone(&config)));
        Ok(config)
    }

    fn lock(&self) -> MutexGuard<'_, Configs> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
