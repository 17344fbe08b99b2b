//! What the key of the CA is worth to a thief.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::super::Authority;
use super::{authority, hosts, verify};

/// What a thief of the key can do: sign whatever he likes.
fn forge(authority: &Authority, names: Vec<SanType>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params.subject_alt_names = names;
    params.use_authority_key_identifier_extension = true;
    params
        .signed_by(&KeyPair::generate().unwrap(), &authority.issuer)
        .unwrap()
        .into()
}

#[test]
fn what_a_thief_signs_for_other_names_is_refused() {
    let (_state, authority) = authority(&["api.openai.com"]);
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for (names, asked) in [
        (vec![dns("example.org")], "example.org"),
        (
            vec![dns("api.openai.com"), dns("example.org")],
            "example.org",
        ),
        (vec![dns("openai.com")], "openai.com"),
        (vec![dns("*.openai.com")], "www.openai.com"),
        (vec![SanType::IpAddress([127, 0, 0, 1].into())], "127.0.0.1"),
        (vec![SanType::IpAddress([0; 16].into())], "::"),
    ] {
        let forged = forge(&authority, names);
        let refused = verify(&authority, &[forged], asked).unwrap_err();
        assert!(
            format!("{refused:?}").contains("NameConstraintViolation"),
            "{asked}: {refused:?}"
        );
    }
    let forged = forge(&authority, vec![dns("api.openai.com")]);
    verify(&authority, &[forged], "api.openai.com").expect("the forgery itself is well made");
}

#[test]
fn a_ca_that_a_thief_makes_below_is_bound_by_the_same_constraints() {
    let (_state, authority) = authority(&["api.openai.com"]);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let below = params.signed_by(&key, &authority.issuer).unwrap();
    let mut params = CertificateParams::new(hosts(&["example.org"])).unwrap();
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    let issuer = Issuer::new(CertificateParams::default(), key);
    let leaf = params
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap();
    let refused = verify(&authority, &[leaf.into(), below.into()], "example.org").unwrap_err();
    assert!(
        format!("{refused:?}").contains("NameConstraintViolation"),
        "{refused:?}"
    );
}
