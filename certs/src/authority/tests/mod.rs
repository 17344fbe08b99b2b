//! What the CA and its leaves hold, who accepts them, and how the CA behaves on a disk.

mod thief;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{Error, RootCertStore};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, AuthorityError, file, issue};

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A CA in a directory that lives as long as the first value.
fn authority(names: &[&str]) -> (TempDir, Authority) {
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(&state.path().join("ca"), &hosts(names)).unwrap();
    (state, authority)
}

/// Puts a CA there that was made at `made`.
fn write_root(directory: &Path, made: OffsetDateTime, previous: &[CertificateDer<'static>]) {
    drop(file::lock(directory).unwrap());
    let contents = issue::root(&hosts(&["api.openai.com"]), previous, made).unwrap();
    file::write(directory, &contents).unwrap();
}

fn verify(authority: &Authority, chain: &[CertificateDer<'_>], name: &str) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
        .map(|_verified| ())
}

#[test]
fn the_root_is_constrained_and_says_where_it_comes_from() {
    let (_state, authority) = authority(&["api.anthropic.com", "*.openai.azure.com"]);
    let (_, root) = X509Certificate::from_der(authority.certificate()).unwrap();

    let basic = root.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca);
    assert_eq!(basic.value.path_len_constraint, Some(0));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    let is_key_id =
        |ext: &ParsedExtension<'_>| matches!(ext, ParsedExtension::SubjectKeyIdentifier(_));
    assert!(
        root.extensions()
            .iter()
            .any(|ext| is_key_id(ext.parsed_extension()))
    );

    let constraints = root.name_constraints().unwrap().unwrap();
    assert!(constraints.critical);
    let bases = |subtrees: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| {
        let subtrees = subtrees.as_ref().unwrap().iter();
        subtrees
            .map(|subtree| format!("{:?}", subtree.base))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        bases(&constraints.value.permitted_subtrees),
        ["api.anthropic.com", "openai.azure.com"]
            .map(|name| format!("{:?}", GeneralName::DNSName(name)))
    );
    assert_eq!(
        bases(&constraints.value.excluded_subtrees),
        [vec![0_u8; 8], vec![0_u8; 32]]
            .map(|range| format!("{:?}", GeneralName::IPAddress(&range)))
    );

    let subject = root.subject().to_string();
    let today = OffsetDateTime::now_utc().date();
    assert!(
        subject.contains("Weir CA ") && subject.contains(&today.to_string()),
        "{subject}"
    );
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(
        host.trim().starts_with(subject.split(' ').nth(3).unwrap()),
        "{subject}"
    );
    let name = root
        .subject()
        .iter_common_name()
        .next()
        .unwrap()
        .as_str()
        .unwrap();
    assert!(name.len() <= 64, "{name}");
}

#[test]
fn a_leaf_holds_what_strict_verifiers_ask_for() {
    let long = format!("{}.example.com", "a".repeat(60));
    let (_state, authority) = authority(&["api.anthropic.com", "example.com"]);
    for (asked, name) in [
        ("api.anthropic.com", "api.anthropic.com"),
        ("API.Anthropic.COM.", "api.anthropic.com"),
        ("eu.api.anthropic.com", "eu.api.anthropic.com"),
        (&long, &long),
    ] {
        let leaf = authority.leaf(asked).unwrap();
        let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName(name)]);
        let purposes = certificate.extended_key_usage().unwrap().unwrap();
        assert!(purposes.value.server_auth && !purposes.value.client_auth);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(
            usage.critical && usage.value.flags == 1,
            "digitalSignature alone"
        );
        assert!(!certificate.is_ca());
        assert_ne!(certificate.subject(), certificate.issuer());

        let (_, root) = X509Certificate::from_der(authority.certificate()).unwrap();
        assert_eq!(certificate.issuer(), root.subject());
        let own_id = |certificate: &X509Certificate<'_>| {
            certificate
                .extensions()
                .iter()
                .find_map(|ext| match ext.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                })
        };
        let issuer_id =
            certificate
                .extensions()
                .iter()
                .find_map(|ext| match ext.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        Some(id.key_identifier.as_ref().unwrap().0.to_vec())
                    }
                    _ => None,
                });
        assert!(own_id(&certificate).is_some());
        assert_eq!(issuer_id, own_id(&root));
        assert_ne!(own_id(&certificate), own_id(&root));

        let validity = certificate.validity();
        let lifetime = validity.not_after.to_datetime() - validity.not_before.to_datetime();
        assert!(lifetime <= Duration::days(197), "{lifetime}");
        assert_eq!(
            validity.not_after.timestamp(),
            leaf.not_after.unix_timestamp()
        );
        assert!(validity.not_before.to_datetime() < OffsetDateTime::now_utc() - Duration::hours(1));
        verify(&authority, &leaf.chain, name).unwrap();
    }
}

#[test]
fn leaves_share_neither_key_nor_serial() {
    let (_state, authority) = authority(&["api.openai.com"]);
    let (mut keys, mut serials) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..64 {
        let leaf = authority.leaf("api.openai.com").unwrap();
        let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
        assert!(certificate.raw_serial().len() <= 20 && certificate.raw_serial()[0] & 0x80 == 0);
        serials.insert(certificate.raw_serial().to_vec());
        let PrivateKeyDer::Pkcs8(key) = leaf.key else {
            panic!("expected PKCS #8")
        };
        keys.insert(key.secret_pkcs8_der().to_vec());
    }
    assert_eq!((keys.len(), serials.len()), (64, 64));
}

#[test]
fn only_covered_hosts_get_a_leaf() {
    let (_state, authority) = authority(&["api.openai.com", "*.openai.azure.com"]);
    for covered in [
        "api.openai.com",
        "my.openai.azure.com",
        "a.b.openai.azure.com",
    ] {
        assert!(authority.covers(covered), "{covered}");
        authority.leaf(covered).unwrap();
    }
    for other in [
        "openai.com",
        "xapi.openai.com",
        "api.openai.com.evil.example",
        "example.org",
        "127.0.0.1",
        "::1",
        "*.openai.azure.com",
        "a b.api.openai.com",
        "",
    ] {
        assert!(!authority.covers(other), "{other}");
        let refused = authority.leaf(other).unwrap_err();
        assert!(
            matches!(refused, AuthorityError::NotCovered { .. }),
            "{other}: {refused}"
        );
    }
}

#[test]
fn a_thousand_hosts_still_verify() {
    let names: Vec<String> = (0..1000)
        .map(|n| format!("region-{n}.example.com"))
        .collect();
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(&state.path().join("ca"), &names).unwrap();
    assert_eq!(authority.permitted().len(), 1000);
    let leaf = authority.leaf("region-999.example.com").unwrap();
    verify(&authority, &leaf.chain, "region-999.example.com").unwrap();
}

#[test]
fn the_host_list_is_checked_before_a_ca_is_made() {
    let state = tempfile::tempdir().unwrap();
    let make = |names: &[&str]| Authority::open_or_create(&state.path().join("ca"), &hosts(names));
    assert!(matches!(make(&[]), Err(AuthorityError::NoHosts)));
    for entry in ["bedrock.*.amazonaws.com", "10.0.0.1", "*", "", "a b"] {
        let refused = make(&["api.openai.com", entry]).unwrap_err();
        assert!(
            matches!(refused, AuthorityError::NotAHost { .. }),
            "{entry:?}: {refused}"
        );
    }
    assert!(matches!(
        Authority::open(&state.path().join("ca")),
        Err(AuthorityError::Absent { .. })
    ));
    let made = make(&["b.example", "A.B.Example.", "b.example", "*.c.example"]).unwrap();
    assert_eq!(made.permitted(), ["b.example", "c.example"]);
}

#[test]
fn a_host_list_that_outgrew_the_ca_is_said_and_a_rotation_follows_it() {
    let (state, first) = authority(&["api.openai.com"]);
    let wanted = hosts(&[
        "api.openai.com",
        "*.api.openai.com",
        "api.groq.com",
        "*.openai.com",
    ]);
    assert_eq!(first.missing(&wanted), ["api.groq.com", "*.openai.com"]);

    let directory = state.path().join("ca");
    let again = Authority::open_or_create(&directory, &wanted).unwrap();
    assert_eq!(
        again.fingerprint_sha256(),
        first.fingerprint_sha256(),
        "left as it is"
    );

    let second = Authority::rotate(&directory, &wanted).unwrap();
    assert!(second.missing(&wanted).is_empty());
    let both = second.certificate_pem() + &first.certificate_pem();
    assert_eq!(second.trusted_pem(), both);

    let third = Authority::rotate(&directory, &wanted).unwrap();
    let both = third.certificate_pem() + &second.certificate_pem();
    assert_eq!(third.trusted_pem(), both, "only one generation is kept");
    let opened = Authority::open(&directory).unwrap();
    assert_eq!(opened.trusted_pem(), third.trusted_pem());
    let text = fs::read_to_string(directory.join("authority.pem")).unwrap();
    assert_eq!(
        text.matches("PRIVATE KEY-----").count(),
        2,
        "the old key is gone"
    );
}

#[test]
fn an_old_ca_is_trusted_no_longer_than_it_is_valid() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let now = OffsetDateTime::now_utc();
    let old = issue::root(&hosts(&["api.openai.com"]), &[], now - Duration::days(800)).unwrap();
    write_root(&directory, now, &[old.certificate]);
    let opened = Authority::open(&directory).unwrap();
    assert_eq!(opened.trusted_pem(), opened.certificate_pem());
}

#[test]
fn a_leaf_does_not_outlive_the_ca() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let now = OffsetDateTime::now_utc();
    write_root(&directory, now - Duration::days(727), &[]);
    let authority = Authority::open(&directory).unwrap();
    assert_eq!(
        authority.leaf("api.openai.com").unwrap().not_after,
        authority.not_after()
    );
    let later = now + Duration::days(4);
    let refused = authority.leaf_at("api.openai.com", later).unwrap_err();
    assert!(
        matches!(refused, AuthorityError::Expired { .. }),
        "{refused}"
    );
}

#[test]
fn those_who_start_at_once_end_with_one_ca() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("not/yet/there/ca");
    let barrier = Barrier::new(8);
    let open = || {
        barrier.wait();
        let opened = Authority::open_or_create(&directory, &hosts(&["api.openai.com"])).unwrap();
        opened.fingerprint_sha256()
    };
    let fingerprints: BTreeSet<String> = thread::scope(|scope| {
        let started: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(fingerprints.len(), 1);
}

#[test]
fn the_key_is_for_its_owner_alone() {
    let (state, _authority) = authority(&["api.openai.com"]);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let directory = state.path().join("ca");
    assert_eq!(mode(directory.clone()), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
    let key = directory.join("authority.pem");
    for open in [0o644, 0o640, 0o660, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(open)).unwrap();
        let refused = Authority::open_or_create(&directory, &hosts(&["api.openai.com"]));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(&format!("{open:04o}")), "{refused}");
        assert!(refused.contains("weir ca rotate"), "{refused}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    Authority::open(&directory).unwrap();
}

#[test]
fn what_a_crash_left_unfinished_does_no_harm() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("authority.pem.new"), "-----BEGIN CERT").unwrap();
    let made = Authority::open_or_create(&directory, &hosts(&["api.openai.com"])).unwrap();
    assert!(!directory.join("authority.pem.new").exists());
    assert_eq!(
        fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
        0o700
    );
    made.leaf("api.openai.com").unwrap();
}

#[test]
fn a_damaged_ca_is_refused_with_what_to_do_and_can_be_replaced() {
    let (state, _first) = authority(&["api.openai.com"]);
    let (other_state, _other) = authority(&["api.openai.com"]);
    let directory = state.path().join("ca");
    let path = directory.join("authority.pem");
    let whole = fs::read_to_string(&path).unwrap();
    let other = fs::read_to_string(other_state.path().join("ca/authority.pem")).unwrap();
    let (certificate, key) = whole.split_once("-----BEGIN PRIVATE").unwrap();
    let (_, other_key) = other.split_once("-----BEGIN PRIVATE").unwrap();
    let key = format!("-----BEGIN PRIVATE{key}");
    let plain = KeyPair::generate().unwrap();
    let unconstrained = CertificateParams::default()
        .self_signed(&plain)
        .unwrap()
        .pem();
    for (text, found) in [
        (String::new(), "an empty file"),
        ("nonsense".to_owned(), "no certificate"),
        (
            whole.chars().take(whole.len() / 4).collect(),
            "no certificate",
        ),
        (certificate.to_owned(), "no private key"),
        (key.clone(), "no certificate"),
        (format!("{whole}{key}"), "more than one private key"),
        (
            format!("{certificate}-----BEGIN PRIVATE{other_key}"),
            "another certificate",
        ),
        (
            unconstrained + &plain.serialize_pem(),
            "a certificate of no CA",
        ),
        (
            format!("{certificate}{}", key.replace("PRIVATE", "EC PRIVATE")),
            "another kind",
        ),
    ] {
        fs::write(&path, &text).unwrap();
        let refused = Authority::open_or_create(&directory, &hosts(&["api.openai.com"]));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(found), "expected {found:?} in {refused:?}");
        assert!(refused.contains("weir ca rotate"), "{refused}");
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole.as_bytes()[..length]).unwrap();
        drop(Authority::open(&directory));
    }
    fs::write(&path, "nonsense").unwrap();
    let made = Authority::rotate(&directory, &hosts(&["api.openai.com"])).unwrap();
    assert_eq!(made.trusted_pem(), made.certificate_pem());
}

#[test]
fn a_ca_out_of_its_time_is_refused_with_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    for (days, advice) in [(-731, "weir ca rotate"), (2, "set the clock")] {
        write_root(
            &directory,
            OffsetDateTime::now_utc() + Duration::days(days),
            &[],
        );
        let refused = Authority::open_or_create(&directory, &hosts(&["api.openai.com"]));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(advice), "{refused}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let state = tempfile::tempdir().unwrap();
    let occupied = state.path().join("file");
    fs::write(&occupied, "").unwrap();
    let refused = Authority::open_or_create(&occupied.join("ca"), &hosts(&["a.example"]));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(occupied.to_str().unwrap()), "{refused}");
}
