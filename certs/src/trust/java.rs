//! Java's own store of roots, `cacerts`: where the installations keep it, and how the CA is added.
//!
//! The store is rewritten here and not by the JDK's `keytool`: that would run a program which the
//! environment of the user chooses with the rights of whoever runs Weir, takes a second, and is not
//! in every image. Both formats that exist are read, JKS (until JDK 17, and Debian's) and PKCS #12
//! without a password (since JDK 18); JKS is written, which every Java since 8u60 reads under
//! either name. Keys are never copied, only trusted certificates.

use std::path::PathBuf;

use super::Surroundings;

/// A root in a store.
struct Entry {
    /// Java's modified UTF-8, kept as it is.
    alias: Vec<u8>,
    /// Milliseconds since 1970, kept as it is.
    created: u64,
    /// DER.
    certificate: Vec<u8>,
}

/// Every store of roots of every installation that was found, resolved, each once.
pub(super) fn stores(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let inside = homes(surroundings)
        .into_iter()
        // Where there is a jssecacerts, Java reads it in place of cacerts.
        .flat_map(|home| STORES_IN_HOME.map(|store| home.join(store)));
    for path in inside.chain(SYSTEM_STORES.map(PathBuf::from)) {
        if let Some(real) = surroundings.resolve(&path)
            && surroundings.outside(&real).is_file()
            && !found.contains(&real)
            && found.len() < STORES_MAX
        {
            found.push(real);
        }
    }
    found
}

/// `store` with the certificates of `ca_pem` added. The error says what was found instead of a
/// store that can be added to.
pub(super) fn merged(store: &[u8], ca_pem: &str) -> Result<Vec<u8>, &'static str> {
    let mut entries = if store.starts_with(&JKS_MAGIC) {
        read_jks(store)?
    } else {
        read_pkcs12(store)?
    };
    if entries.is_empty() {
        return Err("no trusted certificates");
    }
    for (number, certificate) in pem::parse_many(ca_pem)
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        if entries
            .iter()
            .any(|entry| entry.certificate == certificate.contents())
        {
            continue;
        }
        entries.push(Entry {
            alias: format!("weir-ca-{number}").into_bytes(),
            created: 0,
            certificate: certificate.into_contents(),
        });
    }
    write_jks(&entries).ok_or("a store beyond the limits of the format")
}

fn homes(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = surroundings
        .path_variable("JAVA_HOME")
        .into_iter()
        .collect();
    let program = surroundings.program.as_deref();
    for command in program.into_iter().chain(["java".as_ref()]) {
        // `<home>/bin/java`, behind links such as /etc/alternatives.
        let real = surroundings
            .command(command)
            .and_then(|path| surroundings.resolve(&path));
        homes.extend(
            real.iter()
                .filter_map(|path| Some(path.parent()?.parent()?.to_owned())),
        );
    }
    let managed = surroundings
        .home()
        .map(|home| home.join(".sdkman/candidates/java"));
    for parent in managed.into_iter().chain([PathBuf::from("/usr/lib/jvm")]) {
        let names = surroundings.list(&parent);
        homes.extend(names.into_iter().map(|name| parent.join(name)));
    }
    homes
}

/// Reads the trusted certificates of a JKS store, format 1 or 2 (`sun.security.provider.JavaKeyStore`).
fn read_jks(store: &[u8]) -> Result<Vec<Entry>, &'static str> {
    const CUT: &str = "a JKS store that is cut off";
    let mut reader = Reader(store);
    reader.take(JKS_MAGIC.len()).ok_or(CUT)?;
    let version = reader.u32().ok_or(CUT)?;
    if version != 1 && version != 2 {
        return Err("a JKS store of an unknown version");
    }
    let count = reader.u32().ok_or(CUT)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        if reader.u32().ok_or(CUT)? != JKS_TRUSTED {
            return Err("a store with private keys, which is not to be copied");
        }
        let alias = reader.text().ok_or(CUT)?.to_vec();
        let created = reader.u64().ok_or(CUT)?;
        if version == 2 && reader.text().ok_or(CUT)? != X509 {
            return Err("a JKS store with certificates that are not X.509");
        }
        let length = reader.u32().ok_or(CUT)?;
        let certificate = reader.take(length as usize).ok_or(CUT)?.to_vec();
        entries.push(Entry {
            alias,
            created,
            certificate,
        });
    }
    Ok(entries)
}

fn write_jks(entries: &[Entry]) -> Option<Vec<u8>> {
    let mut store = JKS_MAGIC.to_vec();
    store.extend(2_u32.to_be_bytes());
    store.extend(u32::try_from(entries.len()).ok()?.to_be_bytes());
    for entry in entries {
        store.extend(JKS_TRUSTED.to_be_bytes());
        store.extend(u16::try_from(entry.alias.len()).ok()?.to_be_bytes());
        store.extend(&entry.alias);
        store.extend(entry.created.to_be_bytes());
        store.extend(u16::try_from(X509.len()).ok()?.to_be_bytes());
        store.extend(X509);
        store.extend(u32::try_from(entry.certificate.len()).ok()?.to_be_bytes());
        store.extend(&entry.certificate);
    }
    // Java checks this digest only when it is given the password, which is public.
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(JKS_WHITENER);
    digest.update(&store);
    store.extend(digest.finish().as_ref());
    Some(store)
}

/// Reads the certificates of a PKCS #12 store that is neither encrypted nor holds keys
/// (RFC 7292 section 4).
fn read_pkcs12(store: &[u8]) -> Result<Vec<Entry>, &'static str> {
    const OTHER: &str = "neither a JKS store nor a PKCS #12 store without a password";
    let mut pfx = Reader(Reader(store).tlv(SEQUENCE).ok_or(OTHER)?);
    pfx.tlv(INTEGER).ok_or(OTHER)?;
    let authenticated_safe = content(pfx.tlv(SEQUENCE).ok_or(OTHER)?).ok_or(OTHER)?;
    let mut safes = Reader(Reader(authenticated_safe).tlv(SEQUENCE).ok_or(OTHER)?);
    let mut entries = Vec::new();
    while !safes.0.is_empty() {
        let safe =
            content(safes.tlv(SEQUENCE).ok_or(OTHER)?).ok_or("an encrypted PKCS #12 store")?;
        let mut bags = Reader(Reader(safe).tlv(SEQUENCE).ok_or(OTHER)?);
        while !bags.0.is_empty() {
            let certificate = bags.tlv(SEQUENCE).and_then(bagged_certificate);
            let certificate = certificate.ok_or("a PKCS #12 store with more than certificates")?;
            let alias = format!("certificate-{}", entries.len()).into_bytes();
            entries.push(Entry {
                alias,
                created: 0,
                certificate: certificate.to_vec(),
            });
        }
    }
    Ok(entries)
}

/// The octets of a `ContentInfo` that is plain data.
fn content(info: &[u8]) -> Option<&[u8]> {
    let mut info = Reader(info);
    (info.tlv(OBJECT)? == PKCS7_DATA).then_some(())?;
    Reader(info.tlv(EXPLICIT_0)?).tlv(OCTETS)
}

/// The certificate of a `SafeBag` that holds one.
fn bagged_certificate(bag: &[u8]) -> Option<&[u8]> {
    let mut bag = Reader(bag);
    (bag.tlv(OBJECT)? == CERTIFICATE_BAG).then_some(())?;
    let mut certificate = Reader(Reader(bag.tlv(EXPLICIT_0)?).tlv(SEQUENCE)?);
    (certificate.tlv(OBJECT)? == X509_CERTIFICATE).then_some(())?;
    Reader(certificate.tlv(EXPLICIT_0)?).tlv(OCTETS)
}

/// What is left of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// As `java.io.DataOutput.writeUTF` writes it.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// The content of the next DER element, which has this tag.
    fn tlv(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [found, first] = *self.take(2)? else {
            return None;
        };
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => self
                .take(usize::from(first & 0x7f))?
                .iter()
                .fold(0, |length, byte| (length << 8) | usize::from(*byte)),
            _ => return None,
        };
        let content = self.take(length)?;
        (found == tag).then_some(content)
    }
}

const STORES_IN_HOME: [&str; 3] = [
    "lib/security/jssecacerts",
    "lib/security/cacerts",
    "jre/lib/security/cacerts",
];
const SYSTEM_STORES: [&str; 3] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
];
/// More installations than anyone keeps.
const STORES_MAX: usize = 32;

const JKS_MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const JKS_TRUSTED: u32 = 2;
const JKS_WHITENER: &[u8] = b"Mighty Aphrodite";
const X509: &[u8] = b"X.509";
/// What every JDK ships its store with.
const PASSWORD: &str = "changeit";

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;
/// 1.2.840.113549.1.7.1
const PKCS7_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.12.10.1.3
const CERTIFICATE_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03,
];
/// 1.2.840.113549.1.9.22.1
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
