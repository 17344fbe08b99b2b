//! The certificate authority of one machine: made at first use, constrained to its hosts, kept in
//! one file that only its owner can read.

mod error;
mod file;
mod issue;
#[cfg(test)]
mod tests;

use std::path::Path;

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

pub use error::AuthorityError;
pub use issue::Leaf;

use crate::host;
use file::Contents;

/// A CA that can mint leaves for the hosts that its name constraints permit.
///
/// It is worth little to a thief: what it signs for any other name, or for an address, is refused
/// by whoever trusts it (RFC 5280 section 4.2.1.10).
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    /// Those before it that are still valid.
    previous: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    permitted: Vec<String>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Opens the CA in `directory`, or makes one that is constrained to `permitted`.
    ///
    /// An entry of `permitted` is a host name or `*.suffix`; both permit every name below them, as
    /// RFC 5280 knows nothing finer. An existing CA is left as it is, whatever it permits: ask
    /// [`Self::missing`] whether the list has outgrown it. Of two processes that start at once,
    /// one makes the CA and both use it.
    ///
    /// # Errors
    /// When the files cannot be read or written, when what is there cannot be used (the message
    /// says what to do), and when `permitted` is empty or holds something that is no host.
    pub fn open_or_create(directory: &Path, permitted: &[String]) -> Result<Self, AuthorityError> {
        match Self::open(directory) {
            Err(AuthorityError::Absent { .. }) => {}
            opened => return opened,
        }
        let lock = file::lock(directory)?;
        match Self::open(directory) {
            Err(AuthorityError::Absent { .. }) => {}
            opened => return opened,
        }
        let contents = issue::root(permitted, &[], OffsetDateTime::now_utc())?;
        file::write(directory, &contents)?;
        drop(lock);
        Self::open(directory)
    }

    /// Opens the CA in `directory`.
    ///
    /// # Errors
    /// [`AuthorityError::Absent`] when there is none; otherwise as [`Self::open_or_create`].
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let path = file::path(directory);
        Self::from_contents(file::read(directory)?, &path, OffsetDateTime::now_utc())
    }

    /// Replaces the CA in `directory` by a new one that is constrained to `permitted`.
    ///
    /// The certificate (not the key) of the old CA is kept while it is valid, so that
    /// [`Self::trusted_pem`] holds both: processes that still use the old CA go on being trusted
    /// by programs that start after the rotation. An old CA that cannot be read is replaced too.
    ///
    /// # Errors
    /// When the files cannot be written, and when `permitted` is empty or holds something that is
    /// no host.
    pub fn rotate(directory: &Path, permitted: &[String]) -> Result<Self, AuthorityError> {
        let lock = file::lock(directory)?;
        let old = Self::open(directory).ok();
        let kept: Vec<_> = old.iter().map(|old| old.certificate.clone()).collect();
        let contents = issue::root(permitted, &kept, OffsetDateTime::now_utc())?;
        file::write(directory, &contents)?;
        drop(lock);
        Self::open(directory)
    }

    /// The subtrees that the certificate permits, lower case, sorted.
    #[must_use]
    pub fn permitted(&self) -> &[String] {
        &self.permitted
    }

    /// Whether a leaf for `name` would be accepted: a valid name equal to or below a permitted one.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        host::normalize(name).is_some_and(|name| self.permits(&name))
    }

    /// Those of `entries` (hosts or `*.suffix`) that the CA does not cover. Where this is not empty,
    /// the host list has outgrown the CA, and [`Self::rotate`] follows it.
    #[must_use]
    pub fn missing(&self, entries: &[String]) -> Vec<String> {
        entries
            .iter()
            .filter(|entry| !host::subtree(entry).is_some_and(|name| self.permits(&name)))
            .cloned()
            .collect()
    }

    /// The certificate of the CA, as DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate of the CA, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        file::certificate_pem(&self.certificate)
    }

    /// What programs should trust, as PEM: the certificate of the CA, followed by the one before
    /// it where the CA was rotated and the old one is still valid.
    #[must_use]
    pub fn trusted_pem(&self) -> String {
        let trusted = std::iter::once(&self.certificate).chain(&self.previous);
        trusted.map(file::certificate_pem).collect()
    }

    /// SHA-256 of the certificate's DER, lower-case hexadecimal, 64 digits.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> String {
        crate::sha256_hex(&self.certificate)
    }

    /// The last second at which the certificate is valid, UTC.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Mints a certificate for `name`, with a key of its own.
    ///
    /// Costs two P-256 operations and one signature; the caller caches it until shortly before
    /// [`Leaf::not_after`].
    ///
    /// # Errors
    /// [`AuthorityError::NotCovered`] for a name that the constraints do not permit, and for what
    /// is no DNS name, such as an address; [`AuthorityError::Expired`] when the CA has run out
    /// since it was opened.
    pub fn leaf(&self, name: &str) -> Result<Leaf, AuthorityError> {
        self.leaf_at(name, OffsetDateTime::now_utc())
    }

    fn leaf_at(&self, name: &str, now: OffsetDateTime) -> Result<Leaf, AuthorityError> {
        let covered = host::normalize(name).filter(|name| self.permits(name));
        let Some(covered) = covered else {
            return Err(AuthorityError::NotCovered {
                host: name.to_owned(),
            });
        };
        if now > self.not_after {
            return Err(AuthorityError::Expired {
                not_after: self.not_after,
            });
        }
        issue::leaf(self, &covered, now)
    }

    fn permits(&self, name: &str) -> bool {
        host::suffixes(name).any(|suffix| {
            self.permitted
                .binary_search_by(|subtree| subtree.as_str().cmp(suffix))
                .is_ok()
        })
    }

    fn from_contents(
        contents: Contents,
        path: &Path,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let malformed = |found: &'static str| AuthorityError::Malformed {
            path: path.to_owned(),
            found,
        };
        let root = issue::inspect(&contents.certificate).map_err(malformed)?;
        let key = KeyPair::try_from(contents.key.as_slice())
            .map_err(|_rejected| malformed("a private key that is not PKCS #8"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != root.public_key {
            return Err(malformed("a private key of another certificate"));
        }
        if now > root.not_after {
            return Err(AuthorityError::Expired {
                not_after: root.not_after,
            });
        }
        if now < root.not_before {
            return Err(AuthorityError::NotYetValid {
                not_before: root.not_before,
            });
        }
        let issuer = Issuer::from_ca_cert_der(&contents.certificate, key)
            .map_err(|_rejected| malformed("a certificate that cannot issue"))?;
        let mut previous = contents.previous;
        previous.retain(|old| issue::inspect(old).is_ok_and(|old| now <= old.not_after));
        Ok(Self {
            certificate: contents.certificate,
            previous,
            issuer,
            permitted: root.permitted,
            not_before: root.not_before,
            not_after: root.not_after,
        })
    }
}
