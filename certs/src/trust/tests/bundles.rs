//! Bundles: where they are, and how the CA is added.

use super::machine::{BUNDLE, Machine, Pairs, certificate, names};
use crate::trust::bundle;

#[test]
fn the_bundle_of_each_distribution_is_found_behind_its_links() {
    let extracted = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";
    let suse = "/var/lib/ca-certificates/ca-bundle.pem";
    let cases: [(&str, &Pairs, &str); 6] = [
        ("Debian", &[], BUNDLE),
        (
            "Alpine",
            &[("/etc/ssl/cert.pem", "certs/ca-certificates.crt")],
            BUNDLE,
        ),
        (
            "Fedora",
            &[("/etc/pki/tls/certs/ca-bundle.crt", extracted)],
            extracted,
        ),
        (
            "Fedora 43",
            &[("/etc/pki/tls/cert.pem", extracted)],
            extracted,
        ),
        (
            "SUSE",
            &[(
                "/etc/ssl/ca-bundle.pem",
                "../../var/lib/ca-certificates/ca-bundle.pem",
            )],
            suse,
        ),
        (
            "linked twice",
            &[("/etc/ssl/cert.pem", "/x"), ("/x", "usr/../y")],
            "/y",
        ),
    ];
    for (distribution, links, file) in cases {
        let machine = Machine::bare();
        machine.file(file, certificate("distribution"));
        std::fs::create_dir_all(machine.outside("/usr")).unwrap();
        for (link, target) in links {
            machine.link(link, target);
        }
        assert_eq!(
            bundle::system(&machine.seen),
            Some(file.into()),
            "{distribution}"
        );
        assert_eq!(
            machine.overlays().list.len(),
            1,
            "{distribution}: each file once"
        );
    }
    let machine = Machine::bare();
    machine
        .link("/etc/ssl/cert.pem", "/a")
        .link("/a", "/b")
        .link("/b", "/a");
    assert_eq!(
        bundle::system(&machine.seen),
        None,
        "links that go round in circles"
    );
}

#[test]
fn only_certificates_are_merged() {
    let weir = certificate("weir");
    let cases: [(String, &[&str]); 8] = [
        (certificate("a") + &certificate("b"), &["a", "b", "weir"]),
        (certificate("a") + &certificate("a"), &["a", "weir"]),
        (certificate("a") + &weir, &["a", "weir"]),
        (
            format!("# Éà comment\n\n{}", certificate("a")),
            &["a", "weir"],
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n".to_owned()
                + &certificate("a"),
            &["a", "weir"],
        ),
        ("root:$6$secret:19000:0\n".to_owned(), &["weir"]),
        (
            "-----BEGIN CERTIFICATE-----\ncut".to_owned() + &certificate("a"),
            &["a", "weir"],
        ),
        ("-----BEGIN CERTIFICATE-----\ncut".to_owned(), &["weir"]),
    ];
    for (base, expected) in cases {
        let merged = bundle::merged(base.as_bytes(), &weir);
        assert_eq!(names(merged.as_bytes()), expected, "{base}");
        assert!(bundle::contains(merged.as_bytes(), &weir));
    }
    let latin1 = [b"# T\xfcrktrust\n", certificate("a").as_bytes()].concat();
    assert_eq!(
        names(bundle::merged(&latin1, &weir).as_bytes()),
        ["a", "weir"]
    );
}

#[test]
fn a_certificate_is_the_same_however_its_lines_are_wrapped() {
    let wrapped = "-----BEGIN CERTIFICATE-----\r\nwe\r\nir\r\n-----END CERTIFICATE-----";
    assert!(bundle::contains(wrapped.as_bytes(), &certificate("weir")));
    assert!(!bundle::contains(
        certificate("we").as_bytes(),
        &certificate("weir")
    ));
}
