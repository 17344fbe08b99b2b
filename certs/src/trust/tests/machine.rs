//! A made-up machine in a scratch directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::trust::{Environment, Files, JavaDelivery, Overlays, Surroundings};
use crate::trust::{environment, overlays};

pub(super) const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Names with values, or links with targets.
pub(super) type Pairs = [(&'static str, &'static str)];

/// A section that stands for the certificate of `name`. Nothing in bundles looks inside.
pub(super) fn certificate(name: &str) -> String {
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
}

/// The names in a bundle.
pub(super) fn names(bundle: &[u8]) -> Vec<String> {
    let lines = std::str::from_utf8(bundle).unwrap().lines();
    lines
        .filter(|line| !line.contains('-'))
        .map(str::to_owned)
        .collect()
}

pub(super) struct Machine {
    scratch: TempDir,
    pub(super) seen: Surroundings,
}

impl Machine {
    /// A machine with a home directory and nothing else.
    pub(super) fn bare() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let machine = Self {
            seen: Surroundings {
                root: scratch.path().join("root"),
                environment: [
                    ("HOME", "/home/u"),
                    ("PATH", "/usr/bin:/home/u/.pyenv/shims"),
                ]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
                directory: PathBuf::from("/home/u/project"),
                program: None,
            },
            scratch,
        };
        fs::create_dir_all(machine.outside("/home/u/project")).unwrap();
        machine
    }

    /// A machine with the bundle of Debian, which holds one root.
    pub(super) fn debian() -> Self {
        let machine = Self::bare();
        machine.file(BUNDLE, certificate("distribution"));
        machine
    }

    pub(super) fn outside(&self, path: &str) -> PathBuf {
        self.seen.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.outside(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(super) fn command(&self, path: &str, script: &str) -> &Self {
        self.file(path, script);
        fs::set_permissions(self.outside(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub(super) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.outside(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.seen.environment.insert(name.into(), value.into());
        self
    }

    pub(super) fn files(&self) -> Files {
        Files::with_certificates(&self.directory(), &certificate("weir")).unwrap()
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.scratch.path().join("state/trust")
    }

    pub(super) fn overlays(&self) -> Overlays {
        overlays(&self.seen, &self.files()).unwrap()
    }

    pub(super) fn environment(&self) -> Environment {
        environment(&self.seen, &self.files(), JavaDelivery::Overlay).unwrap()
    }

    /// The certificates in the file that a variable is set to.
    pub(super) fn roots_of(&self, name: &str) -> Option<Vec<String>> {
        let environment = self.environment();
        let file = environment.set.get(name)?;
        Some(names(&fs::read(Path::new(file)).unwrap()))
    }
}
