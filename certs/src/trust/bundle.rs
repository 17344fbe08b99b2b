//! PEM bundles of roots: where a system keeps its own, and how the CA is added to one.
//!
//! Only certificates are ever copied. The files are named by the environment of the program and
//! may be read with more rights than it has, while the copy is readable by all; so comments, keys
//! and whatever else such a file holds stay behind.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Surroundings;

/// `base` with the certificates of `ca_pem` added, unless it holds them; certificates only, in
/// their order.
#[must_use]
pub fn merged(base: &[u8], ca_pem: &str) -> String {
    union([base, ca_pem.as_bytes()])
}

/// Whether every certificate of `ca_pem` is in `base`.
#[must_use]
pub fn contains(base: &[u8], ca_pem: &str) -> bool {
    let base = String::from_utf8_lossy(base);
    let there: BTreeSet<Vec<u8>> = certificates(&base).map(body).collect();
    certificates(ca_pem).all(|section| there.contains(&body(section)))
}

/// The bundle of the system that `surroundings` show, resolved; `None` where none is installed.
#[must_use]
pub fn system(surroundings: &Surroundings) -> Option<PathBuf> {
    system_all(surroundings).into_iter().next()
}

/// Every bundle of the system, each file once, that which programs look for first in front.
pub(super) fn system_all(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in SYSTEM_BUNDLES {
        if let Some(real) = surroundings.resolve(path.as_ref())
            && !found.contains(&real)
            && surroundings.outside(&real).is_file()
        {
            found.push(real);
        }
    }
    found
}

/// The certificates of all of `bundles`, each once.
pub(super) fn union<'a>(bundles: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    for bundle in bundles {
        for section in certificates(&String::from_utf8_lossy(bundle)) {
            if seen.insert(body(section)) {
                text.push_str(section);
                text.push('\n');
            }
        }
    }
    text
}

/// The certificate sections of a PEM text, from the first dash to the last, as they are written. A
/// section that was cut off is left out; what follows it is not.
pub(super) fn certificates(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(BEGIN).filter_map(|(start, _)| {
        let section = text.get(start..)?;
        let after = section.strip_prefix(BEGIN)?;
        let inner = after
            .bytes()
            .take_while(|byte| is_base64_or_blank(*byte))
            .count();
        after.get(inner..)?.starts_with(END).then_some(())?;
        section.get(..BEGIN.len() + inner + END.len())
    })
}

/// What identifies a section, however its lines are wrapped.
fn body(section: &str) -> Vec<u8> {
    let mut body = section.as_bytes().to_vec();
    body.retain(|byte| !byte.is_ascii_whitespace());
    body
}

fn is_base64_or_blank(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\n' | b'\r' | b' ')
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// In the order in which Go looks for them (`crypto/x509/root_linux.go`), which knows most systems.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora
    "/etc/ssl/ca-bundle.pem",             // SUSE
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, behind the link above
    "/etc/ssl/cert.pem",                                 // Alpine's libressl
];
