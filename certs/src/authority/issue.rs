//! The two kinds of certificate that exist here, the root and the leaf, and what they must hold.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::file::Contents;
use super::{Authority, AuthorityError};
use crate::host;

/// What a client is answered with.
#[derive(Debug)]
pub struct Leaf {
    /// The leaf alone: whoever trusts the root has it, so it is not sent.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the leaf, PKCS #8.
    pub key: PrivateKeyDer<'static>,
    /// The last second at which the leaf is valid, UTC.
    pub not_after: OffsetDateTime,
}

/// Makes a root that is constrained to `permitted`.
pub(super) fn root(
    permitted: &[String],
    previous: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<Contents, AuthorityError> {
    let subtrees = subtrees(permitted)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now + ROOT_LIFETIME;
    params.serial_number = Some(serial()?);
    params.distinguished_name = common_name(&root_name(&key, now));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: subtrees.into_iter().map(GeneralSubtree::DnsName).collect(),
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    Ok(Contents {
        certificate: params.self_signed(&key)?.into(),
        key: key.serialize_der(),
        previous: previous.to_vec(),
    })
}

/// Makes a leaf for `name`, which is normalized and covered.
pub(super) fn leaf(
    authority: &Authority,
    name: &str,
    now: OffsetDateTime,
) -> Result<Leaf, AuthorityError> {
    let key = KeyPair::generate()?;
    let not_after = (now + LEAF_LIFETIME).min(authority.not_after);
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).max(authority.not_before);
    params.not_after = not_after;
    params.serial_number = Some(serial()?);
    params.distinguished_name = common_name(if name.len() <= COMMON_NAME_CHARS_MAX {
        name
    } else {
        "Weir leaf"
    });
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    // Written out, because rcgen gives only such certificates a subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    Ok(Leaf {
        chain: vec![certificate.into()],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        not_after,
    })
}

/// What a root says about itself.
pub(super) struct Root {
    /// Subject public key info, DER.
    pub(super) public_key: Vec<u8>,
    pub(super) permitted: Vec<String>,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
}

/// Reads a root; the error says what was found instead of one.
pub(super) fn inspect(certificate: &CertificateDer<'_>) -> Result<Root, &'static str> {
    let (rest, root) = X509Certificate::from_der(certificate)
        .map_err(|_rejected| "a certificate that is not X.509")?;
    if !rest.is_empty() {
        return Err("bytes after the certificate");
    }
    if !root.is_ca() {
        return Err("a certificate of no CA");
    }
    let constraints = root
        .name_constraints()
        .map_err(|_rejected| "unreadable name constraints")?
        .ok_or("a CA without name constraints")?;
    let mut permitted: Vec<String> = constraints
        .value
        .permitted_subtrees
        .iter()
        .flatten()
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    if permitted.is_empty() {
        return Err("a CA that permits no DNS name");
    }
    permitted.sort_unstable();
    Ok(Root {
        public_key: root.public_key().raw.to_vec(),
        permitted,
        not_before: root.validity().not_before.to_datetime(),
        not_after: root.validity().not_after.to_datetime(),
    })
}

/// The sorted subtrees of a host list, without those that another one contains.
fn subtrees(permitted: &[String]) -> Result<Vec<String>, AuthorityError> {
    let mut all = permitted
        .iter()
        .map(|entry| {
            host::subtree(entry).ok_or_else(|| AuthorityError::NotAHost {
                entry: entry.clone(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    let contained = |name: &str| {
        host::suffixes(name).skip(1).any(|suffix| {
            all.binary_search_by(|other| other.as_str().cmp(suffix))
                .is_ok()
        })
    };
    let kept: Vec<String> = all
        .iter()
        .filter(|name| !contained(name))
        .cloned()
        .collect();
    if kept.is_empty() {
        return Err(AuthorityError::NoHosts);
    }
    Ok(kept)
}

/// Names the machine and the day, for whoever finds the root in a trust store, and the key, because
/// two roots of one name confuse verifiers that look an issuer up by its name.
fn root_name(key: &KeyPair, now: OffsetDateTime) -> String {
    let host = fs::read_to_string(HOST_NAME).unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .take(HOST_CHARS_MAX)
        .collect();
    let digest = crate::sha256_hex(&key.subject_public_key_info());
    let key: String = digest.chars().take(KEY_DIGITS).collect();
    format!("Weir CA {host} {} {key}", now.date())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Weir");
    subject.push(DnType::CommonName, name);
    subject
}

/// 127 random bits, positive (RFC 5280 section 4.1.2.2 allows 20 octets).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
    if let Some(first) = bytes.first_mut() {
        // The leading one bit keeps the length, the leading zero bit the sign.
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// Virtual machines and containers wake up with clocks that are behind by hours.
const BACKDATE: Duration = Duration::days(1);
/// Long enough that a machine is set up once in its life, short enough that a copied key ages out.
/// Runtimes limit the lifetime of leaves, not that of roots which the user installs.
const ROOT_LIFETIME: Duration = Duration::days(730);
/// A leaf lives in memory and costs microseconds, so it need not live long. Chromium refuses more
/// than 200 days.
const LEAF_LIFETIME: Duration = Duration::days(7);
/// RFC 5280 appendix A.1, ub-common-name.
const COMMON_NAME_CHARS_MAX: usize = 64;
/// "Weir CA " + this + " 2026-01-31 " + `KEY_DIGITS` stays within a common name.
const HOST_CHARS_MAX: usize = 36;
const KEY_DIGITS: usize = 8;
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
