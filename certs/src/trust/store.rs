//! The machine's own trust store: the CA put in and taken out, by the means of the distribution.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{TrustError, bundle};

/// What came of a change to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The store was changed and rebuilt.
    Made,
    /// The store was as asked for already.
    None,
}

/// Puts the certificates of `trusted_pem` into the store of the system at `root`, in place of those
/// that an earlier call put there. Programs that run already keep the roots they have read.
///
/// # Errors
/// When the store is of no known layout, cannot be written (this needs root), or cannot be rebuilt.
pub fn install(root: &Path, trusted_pem: &str) -> Result<Change, TrustError> {
    let store = Store::find(root)?;
    // One certificate a file: Debian's rehashing takes no more.
    let certificates: Vec<String> = bundle::certificates(trusted_pem)
        .map(|section| format!("{section}\n"))
        .collect();
    let wanted: Vec<(PathBuf, &String)> = certificates
        .iter()
        .enumerate()
        .map(|(number, text)| (store.anchor(number), text))
        .collect();
    let same =
        |(path, text): &(PathBuf, &String)| fs::read(path).is_ok_and(|b| b == text.as_bytes());
    if wanted.iter().all(same) && store.anchors().len() == wanted.len() {
        return Ok(Change::None);
    }
    store.clear()?;
    for (path, text) in &wanted {
        put(path, text.as_bytes()).map_err(|source| unwritable(path, source))?;
    }
    store.update()?;
    Ok(Change::Made)
}

/// Takes out of the store what [`install`] put there.
///
/// # Errors
/// As [`install`].
pub fn uninstall(root: &Path) -> Result<Change, TrustError> {
    let store = Store::find(root)?;
    if store.anchors().is_empty() {
        return Ok(Change::None);
    }
    store.clear()?;
    store.update()?;
    Ok(Change::Made)
}

/// What of Weir's is in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The CA that was asked about.
    This,
    /// Another CA alone: one that was before, or that of another state directory.
    Another,
    /// Nothing.
    None,
}

/// Whether [`install`] has put the CA with one of the certificates in `pem` into the store of the system
/// at `root`.
#[must_use]
pub fn installed(root: &Path, pem: &str) -> Installed {
    let anchors = Store::find(root).map_or_else(|_| vec![], |store| store.anchors());
    let is_of_pem = |path: &PathBuf| {
        fs::read_to_string(path).is_ok_and(|held| bundle::contains(pem.as_bytes(), &held))
    };
    match anchors.as_slice() {
        [] => Installed::None,
        some if some.iter().any(is_of_pem) => Installed::This,
        _ => Installed::Another,
    }
}

/// One distribution's way.
struct Layout {
    /// Where the administrator's own roots are put.
    anchors: &'static str,
    extension: &'static str,
    command: &'static str,
}

struct Store<'a> {
    root: &'a Path,
    layout: &'static Layout,
}

impl<'a> Store<'a> {
    fn find(root: &'a Path) -> Result<Self, TrustError> {
        LAYOUTS
            .iter()
            .find(|layout| {
                root.join(layout.command).is_file() && root.join(layout.anchors).is_dir()
            })
            .map(|layout| Self { root, layout })
            .ok_or_else(|| TrustError::NoStore {
                root: root.to_owned(),
            })
    }

    fn anchor(&self, number: usize) -> PathBuf {
        let name = match number {
            0 => STEM.to_owned(),
            _ => format!("{STEM}-previous"),
        };
        let file = format!("{name}.{}", self.layout.extension);
        self.root.join(self.layout.anchors).join(file)
    }

    /// Those of our files that are there.
    fn anchors(&self) -> Vec<PathBuf> {
        [0, 1]
            .map(|number| self.anchor(number))
            .into_iter()
            .filter(|path| path.exists())
            .collect()
    }

    /// Removes our files, and the links to them that `update-ca-certificates` made: it leaves
    /// links that lead nowhere unless it is told to make the whole directory anew.
    fn clear(&self) -> Result<(), TrustError> {
        for anchor in self.anchors() {
            fs::remove_file(&anchor).map_err(|source| unwritable(&anchor, source))?;
            let name = anchor
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let names = [format!("{name}.pem"), format!("ca-cert-{name}.pem")];
            let removed = self
                .remove_links(&names)
                .map_err(|source| unwritable(&anchor, source))?;
            for link in removed {
                self.tell_hooks(&link)?;
            }
        }
        Ok(())
    }

    /// Removes the links of these names, and the hash links to them. Returns the former.
    fn remove_links(&self, names: &[String]) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        let Ok(entries) = fs::read_dir(self.root.join(LINKS)) else {
            return Ok(removed);
        };
        for entry in entries {
            let path = entry?.path();
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            let is_one = |file: &Path| names.iter().any(|name| Path::new(name) == file);
            let own = path.file_name().is_some_and(|name| is_one(name.as_ref()));
            if own || is_one(&target) {
                fs::remove_file(&path)?;
            }
            if own {
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// Tells Debian's hooks, of which one keeps the store of Java, that a certificate is gone, the
    /// way that `update-ca-certificates` does for those it removes itself.
    fn tell_hooks(&self, link: &Path) -> Result<(), TrustError> {
        let Ok(hooks) = fs::read_dir(self.root.join(HOOKS)) else {
            return Ok(());
        };
        for hook in hooks.flatten().map(|entry| entry.path()) {
            let executable = |file: fs::Metadata| file.permissions().mode() & 0o111 != 0;
            if fs::metadata(&hook).is_ok_and(executable) {
                run(&hook, &[], &format!("-{}\n", link.display()))?;
            }
        }
        Ok(())
    }

    fn update(&self) -> Result<(), TrustError> {
        run(&self.root.join(self.layout.command), &[], "")
    }
}

fn run(command: &Path, arguments: &[&str], input: &str) -> Result<(), TrustError> {
    let failed = |found: String| TrustError::UpdateFailed {
        command: command.to_owned(),
        found,
    };
    let ended = Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                // A command that does not read its input is none the worse for it.
                drop(stdin.write_all(input.as_bytes()));
            }
            child.wait_with_output()
        })
        .map_err(|error| failed(error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("nothing");
    Err(failed(format!(
        "it ended with {} and said: {last}",
        ended.status
    )))
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn unwritable(path: &Path, source: io::Error) -> TrustError {
    TrustError::Unwritable {
        path: path.to_owned(),
        source,
    }
}

/// SUSE before Debian: both have `update-ca-certificates`, only SUSE has the directory.
const LAYOUTS: [Layout; 3] = [
    Layout {
        anchors: "etc/pki/ca-trust/source/anchors", // Fedora
        extension: "crt",
        command: "usr/bin/update-ca-trust",
    },
    Layout {
        anchors: "etc/pki/trust/anchors", // SUSE
        extension: "crt",
        command: "usr/sbin/update-ca-certificates",
    },
    Layout {
        anchors: "usr/local/share/ca-certificates", // Debian, Alpine
        extension: "crt",
        command: "usr/sbin/update-ca-certificates",
    },
];
const STEM: &str = "weir-ca";
const LINKS: &str = "etc/ssl/certs";
const HOOKS: &str = "etc/ca-certificates/update.d";
