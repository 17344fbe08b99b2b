//! The secret that nodes share: what they hash and seal under it means the same to all of them.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::process::config::{self, CacheMode, Config};

/// `cache.secret_file`, as it was at the start. Never printed.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// The secret that is configured, if any. Without one nothing is shared, which is said where there
    /// are other nodes (`is_fleet`).
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn of(cache: &config::Cache, is_fleet: bool) -> io::Result<Option<Self>> {
        let secret = cache.secret_file.as_deref().map(Self::read).transpose()?;
        if is_fleet && secret.is_none() && cache.mode == CacheMode::Rewrite {
            tracing::warn!(
                "conversations are not shared: one that goes on at another node goes on unedited; \
                 give all nodes one cache.secret_file"
            );
        }
        Ok(secret)
    }

    /// What is to be said of caps where there are other nodes and no secret is configured: each node
    /// names keys otherwise, so none knows what the others spent.
    pub(crate) fn missed_by_caps(config: &Config, is_fleet: bool) -> Option<String> {
        let caps = config.caps_by_key();
        let is_missing = is_fleet && config.cache.secret_file.is_none() && !caps.is_empty();
        is_missing.then(|| {
            format!(
                "caps by key do not hold across nodes: each node spends the whole limit of {} by \
                 itself; give all nodes one cache.secret_file",
                caps.join(", ")
            )
        })
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// It can't be read, anybody may read it, or it is too short or too long.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let wrong = |kind, said: String| {
            let at = path.display();
            io::Error::new(kind, format!("cache.secret_file {at}: {said}"))
        };
        let unreadable = |error: io::Error| {
            wrong(
                error.kind(),
                format!(
                    "expected a file that user id {} can read: {error}",
                    nix::unistd::geteuid()
                ),
            )
        };
        let file = fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(wrong(
                io::ErrorKind::PermissionDenied,
                format!(
                    "expected a file that only its owner and group can read, found mode {mode:04o}: \
                     chmod it to 0440, or give the Kubernetes volume defaultMode: 0440"
                ),
            ));
        }
        let mut secret = Vec::new();
        let limit = SECRET_BYTES_MAX.saturating_add(1);
        file.take(limit)
            .read_to_end(&mut secret)
            .map_err(unreadable)?;
        let bytes = u64::try_from(secret.len()).unwrap_or(u64::MAX);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes) {
            let found = if bytes > SECRET_BYTES_MAX {
                "more".to_owned()
            } else {
                bytes.to_string()
            };
            return Err(wrong(
                io::ErrorKind::InvalidData,
                format!(
                    "expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, found {found}: make \
                     one with head -c 32 /dev/urandom, the same for all nodes"
                ),
            ));
        }
        Ok(Self(secret))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

const SECRET_BYTES_MIN: u64 = 32;
const SECRET_BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(bytes: &[u8], mode: u32) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match Secret::read(&path) {
            Ok(secret) => format!("{} bytes", secret.bytes().len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn caps_by_key_on_many_nodes_want_a_secret() {
        let said = |text: &str, is_fleet| {
            let config = Config::parse(text, Path::new("weir.toml")).unwrap();
            Secret::missed_by_caps(&config, is_fleet)
        };
        let cap = |rest: &str| {
            format!("[[cap]]\nname = \"c1\"\nwindow = \"day\"\nlimit_usd = 5\n{rest}\n")
        };
        let by_key = cap("per = [\"key\"]");
        let warning = said(&by_key, true).unwrap();
        assert!(warning.contains("the whole limit of c1 by"), "{warning}");
        assert_eq!(said(&by_key, false), None, "one machine");
        let secret = format!("{by_key}[cache]\nsecret_file = \"/s\"\n");
        assert_eq!(said(&secret, true), None);
        assert_eq!(said(&cap("per = [\"user\"]"), true), None);
        assert!(said(&cap("match = { key = [\"7a*\"] }"), true).is_some());
        let by_team = cap("per = [\"team\"]");
        let team = |of: &str| said(&format!("{by_team}[teams.a]\n{of} = [\"a*\"]\n"), true);
        assert!(team("key").is_some());
        assert_eq!(team("user"), None);
    }

    #[test]
    fn a_secret_is_long_enough_and_not_everybodys() {
        assert_eq!(refused(&[7; 32], 0o440), "32 bytes");
        let short = refused(&[7; 31], 0o400);
        assert!(
            short.contains("expected 32 to 4096 bytes, found 31"),
            "{short}"
        );
        let long = refused(&[7; 5000], 0o400);
        assert!(long.contains("found more"), "{long}");
        let open = refused(&[7; 32], 0o644);
        assert!(open.contains("found mode 0644"), "{open}");
        let none = Secret::read(Path::new("/none/weir-cache")).err().unwrap();
        assert!(none.to_string().contains("/none/weir-cache"), "{none}");
    }
}
