//! Which files a program should see replaced, in a mount namespace of its own, to trust the CA.
//!
//! Variables do not reach a runtime that reads its own file (requests with certifi, Java) or that
//! clears its environment. The mounting itself is not done here.

use std::path::{Path, PathBuf};

use super::{Files, Surroundings, TrustError, bundle, java, python};

/// One file to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The file as the program sees it, without symbolic links: where to mount.
    pub target: PathBuf,
    /// The file that the program shall see instead, as this process sees it: what to mount.
    pub replacement: PathBuf,
    /// Whose file it is.
    pub kind: OverlayKind,
}

/// Whose file an overlay replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayKind {
    /// A bundle of the system.
    System,
    /// A bundle that a Python package brought along.
    Python,
    /// The store of a Java installation.
    Java,
}

/// What to mount, and what could not be covered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlays {
    /// The files to be replaced; no target is named twice.
    pub list: Vec<Overlay>,
    /// For the log: which files were found and left alone, and why.
    pub notes: Vec<String>,
}

/// Finds the files of roots that a program in `surroundings` may read, and writes a replacement
/// with the CA added for each. Files that hold the CA are left alone.
///
/// # Errors
/// [`TrustError::Unwritable`] when a replacement cannot be written.
pub fn overlays(surroundings: &Surroundings, files: &Files) -> Result<Overlays, TrustError> {
    let mut overlays = Overlays::default();
    for target in bundle::system_all(surroundings) {
        overlays.add_bundle(surroundings, files, target, OverlayKind::System)?;
    }
    let packaged = python::packaged_roots(surroundings);
    if packaged.is_cut {
        overlays.notes.push(format!(
            "more Python installations than are looked at, {} files of roots: the rest rely on \
             the variables",
            python::FILES_MAX
        ));
    }
    for found in packaged.roots {
        overlays.add_bundle(surroundings, files, found.path, OverlayKind::Python)?;
    }
    for target in java::stores(surroundings) {
        overlays.add_store(surroundings, files, target)?;
    }
    Ok(overlays)
}

impl Overlays {
    fn add_bundle(
        &mut self,
        surroundings: &Surroundings,
        files: &Files,
        target: PathBuf,
        kind: OverlayKind,
    ) -> Result<(), TrustError> {
        // Debian's certifi is a link to the bundle of the system.
        if self.list.iter().any(|other| other.target == target) {
            return Ok(());
        }
        let base = match surroundings.read(&target) {
            Ok(base) => base,
            Err(error) => {
                self.skip(&target, &error.to_string());
                return Ok(());
            }
        };
        if !bundle::contains(&base, files.trusted_pem()) {
            let merged = bundle::merged(&base, files.trusted_pem());
            let replacement = files.put("bundle", "pem", merged.as_bytes())?;
            self.list.push(Overlay {
                target,
                replacement,
                kind,
            });
        }
        Ok(())
    }

    fn add_store(
        &mut self,
        surroundings: &Surroundings,
        files: &Files,
        target: PathBuf,
    ) -> Result<(), TrustError> {
        let merged = surroundings
            .read(&target)
            .map_err(|error| error.to_string())
            .and_then(|store| java::merged(&store, files.trusted_pem()).map_err(str::to_owned));
        match merged {
            Ok(store) => {
                let replacement = files.put("cacerts", "jks", &store)?;
                self.list.push(Overlay {
                    target,
                    replacement,
                    kind: OverlayKind::Java,
                });
            }
            Err(found) => self.skip(&target, &found),
        }
        Ok(())
    }

    fn skip(&mut self, target: &Path, found: &str) {
        let target = target.display();
        self.notes.push(format!(
            "{target} is not replaced: expected a store of roots, found {found}"
        ));
    }
}
