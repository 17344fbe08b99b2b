//! Which files a program should see replaced, in a mount namespace of its own, to trust the CA.
//!
//! Variables do not reach a runtime that reads its own file (requests with certifi, Java) or that
//! clears its environment. The mounting itself is not done here.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Files, Surroundings, TrustError, bundle, java, python};

/// One file to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The file as the program sees it, without symbolic links: where to mount.
    pub target: PathBuf,
    /// The file that the program shall see instead, as this process sees it: what to mount.
    pub replacement: PathBuf,
    /// Which file was found to be one of roots. Whoever mounts checks that the target still is it:
    /// the directories above may belong to someone who would have another file replaced.
    pub seen: FileId,
    /// Whose file it is.
    pub kind: OverlayKind,
}

/// Which file it is, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Number of its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Id of the user who owns it: the number of an inode that is gone is given to another file.
    pub owner: u32,
    /// When the inode last changed, seconds and nanoseconds since 1970, for the same reason.
    pub changed: (i64, i64),
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            owner: metadata.uid(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
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
/// Paths of users lead anywhere (`certifi/cacert.pem` may be a link to `/etc/shadow`), so outside of
/// the bundles of the system a file is replaced only if it holds a certificate, and belongs to root
/// or to [`Surroundings::invoker`].
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
        let read = match kind {
            OverlayKind::System => surroundings
                .read_seen(&target)
                .map_err(|error| error.to_string()),
            OverlayKind::Python | OverlayKind::Java => roots_of_users(surroundings, &target)
                .and_then(|(base, metadata)| match bundle::is_empty(&base) {
                    false => Ok((base, metadata)),
                    true => Err("no certificate".to_owned()),
                }),
        };
        let (base, metadata) = match read {
            Ok(read) => read,
            Err(found) => {
                self.skip(&target, &found);
                return Ok(());
            }
        };
        if !bundle::contains(&base, files.trusted_pem()) {
            let merged = bundle::merged(&base, files.trusted_pem());
            let replacement = files.put("bundle", "pem", merged.as_bytes())?;
            self.list.push(Overlay {
                target,
                replacement,
                seen: FileId::from(&metadata),
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
        let merged = roots_of_users(surroundings, &target).and_then(|(store, metadata)| {
            let merged = java::merged(&store, files.trusted_pem())?;
            Ok((merged, metadata))
        });
        match merged {
            Ok((store, metadata)) => {
                let replacement = files.put("cacerts", "jks", &store)?;
                self.list.push(Overlay {
                    target,
                    replacement,
                    seen: FileId::from(&metadata),
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

/// Reads a file that paths of users led to.
fn roots_of_users(
    surroundings: &Surroundings,
    target: &Path,
) -> Result<(Vec<u8>, Metadata), String> {
    let (bytes, metadata) = surroundings
        .read_seen(target)
        .map_err(|error| error.to_string())?;
    let owner = metadata.uid();
    match surroundings.invoker {
        Some(invoker) if owner != 0 && owner != invoker => Err(format!("a file of user {owner}")),
        _ => Ok((bytes, metadata)),
    }
}
