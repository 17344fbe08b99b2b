//! The file of the CA: certificate, key and the certificate before it, as PEM, in one file, so that
//! one rename replaces them all and a crash never leaves a key with another key's certificate.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;

use super::AuthorityError;

/// What the file holds.
pub(super) struct Contents {
    pub(super) certificate: CertificateDer<'static>,
    /// PKCS #8, DER.
    pub(super) key: Vec<u8>,
    /// The CA before this one, if there was one.
    pub(super) previous: Vec<CertificateDer<'static>>,
}

pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

pub(super) fn read(directory: &Path) -> Result<Contents, AuthorityError> {
    let path = path(directory);
    let file = match OpenOptions::new().read(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(AuthorityError::Absent { path });
        }
        Err(source) => return Err(AuthorityError::Unreadable { path, source }),
    };
    let mut text = Vec::new();
    let mode = file
        .metadata()
        .and_then(|metadata| {
            file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
            Ok(metadata.permissions().mode() & 0o7777)
        })
        .map_err(|source| AuthorityError::Unreadable {
            path: path.clone(),
            source,
        })?;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::TooOpen { path, mode });
    }
    parse(&text).map_err(|found| AuthorityError::Malformed { path, found })
}

/// Takes the lock of the directory, which it makes if need be. Held until the file is dropped.
pub(super) fn lock(directory: &Path) -> Result<File, AuthorityError> {
    let path = directory.join(LOCK);
    make_directory(directory)
        .and_then(|()| {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                // The other process makes a CA: that takes milliseconds.
                Err(TryLockError::WouldBlock) => file.lock().map(|()| file),
                Err(TryLockError::Error(error)) => Err(error),
            }
        })
        .map_err(|source| AuthorityError::Unwritable { path, source })
}

/// Replaces the file, all or nothing, and durably. The caller holds the lock.
pub(super) fn write(directory: &Path, contents: &Contents) -> Result<(), AuthorityError> {
    let path = path(directory);
    let sections: Vec<Pem> = [
        Pem::new(CERTIFICATE, contents.certificate.as_ref()),
        Pem::new(PRIVATE_KEY, contents.key.as_slice()),
    ]
    .into_iter()
    .chain(
        contents
            .previous
            .iter()
            .map(|der| Pem::new(CERTIFICATE, der.as_ref())),
    )
    .collect();
    let text = pem::encode_many_config(&sections, ENCODING);
    replace(directory, &path, text.as_bytes())
        .map_err(|source| AuthorityError::Unwritable { path, source })
}

pub(super) fn certificate_pem(der: &CertificateDer<'static>) -> String {
    pem::encode_config(&Pem::new(CERTIFICATE, der.as_ref()), ENCODING)
}

fn make_directory(directory: &Path) -> std::io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Someone may have made it with the default mode.
            let mode = fs::metadata(directory)?.permissions().mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        made => made,
    }
}

fn replace(directory: &Path, path: &Path, text: &[u8]) -> std::io::Result<()> {
    let unfinished = directory.join(UNFINISHED);
    // What a crash left behind; the lock says that nobody is writing it.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

fn parse(text: &[u8]) -> Result<Contents, &'static str> {
    if text.is_empty() {
        return Err("an empty file");
    }
    let sections = pem::parse_many(text).map_err(|_rejected| "something that is not PEM")?;
    let (mut certificates, mut keys) = (Vec::new(), Vec::new());
    for section in sections {
        match section.tag() {
            CERTIFICATE => certificates.push(CertificateDer::from(section.into_contents())),
            PRIVATE_KEY => keys.push(section.into_contents()),
            _ => return Err("a PEM section of another kind"),
        }
    }
    let mut certificates = certificates.into_iter();
    let certificate = certificates.next().ok_or("no certificate")?;
    let key = match keys.len() {
        0 => Err("no private key"),
        1 => keys.pop().ok_or("no private key"),
        _ => Err("more than one private key"),
    }?;
    Ok(Contents {
        certificate,
        key,
        previous: certificates.collect(),
    })
}

const FILE: &str = "authority.pem";
const UNFINISHED: &str = "authority.pem.new";
const LOCK: &str = "lock";
const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";
const ENCODING: EncodeConfig = EncodeConfig::new().set_line_ending(LineEnding::LF);
/// A CA for ten thousand hosts is below this.
const FILE_BYTES_MAX: u64 = 1 << 20;
