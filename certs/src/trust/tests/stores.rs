//! Java's stores, and the system's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::machine::{Machine, certificate, names};
use crate::trust::store::Installed;
use crate::trust::{TrustError, java, store};

/// A JKS store of trusted certificates, put together by hand.
pub(super) fn jks(aliases: &[&str]) -> Vec<u8> {
    jks_of(
        2,
        &aliases.iter().map(|alias| (2, *alias)).collect::<Vec<_>>(),
    )
}

fn jks_of(version: u32, entries: &[(u32, &str)]) -> Vec<u8> {
    let mut store = [0xfe, 0xed, 0xfe, 0xed].to_vec();
    store.extend(version.to_be_bytes());
    store.extend((entries.len() as u32).to_be_bytes());
    for (tag, alias) in entries {
        store.extend(tag.to_be_bytes());
        store.extend((alias.len() as u16).to_be_bytes());
        store.extend(alias.bytes());
        store.extend(7_u64.to_be_bytes());
        if version == 2 {
            store.extend(b"\0\x05X.509");
        }
        let der = der(alias);
        store.extend((der.len() as u32).to_be_bytes());
        store.extend(der);
    }
    store.extend([0; 20]);
    store
}

/// A certificate that stands for `name`: what its section decodes to, filled up to whole bytes.
fn der(name: &str) -> Vec<u8> {
    let filled = format!("{name:A<width$}", width = name.len().next_multiple_of(4));
    pem::parse(certificate(&filled)).unwrap().into_contents()
}

/// The names whose certificates a JKS store holds; its digest is checked with Java's password.
pub(super) fn read_jks(store: &[u8]) -> Vec<String> {
    let (content, digest) = store.split_at(store.len() - 20);
    let password: Vec<u8> = "changeit".bytes().flat_map(|byte| [0, byte]).collect();
    let signed = [&password, b"Mighty Aphrodite".as_slice(), content].concat();
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &signed);
    assert_eq!(digest, expected.as_ref());
    // A store holds its certificates in the order in which they were added.
    let mut found: Vec<(usize, &str)> = ["mozilla", "mozilla1", "weir"]
        .into_iter()
        .filter_map(|name| {
            let der = der(name);
            let marked = [&(der.len() as u32).to_be_bytes(), der.as_slice()].concat();
            let at = content
                .windows(marked.len())
                .position(|window| window == marked)?;
            Some((at, name))
        })
        .collect();
    found.sort_unstable();
    assert_eq!(content[8..12], (found.len() as u32).to_be_bytes());
    found.into_iter().map(|(_, name)| name.to_owned()).collect()
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        short @ 0..=127 => vec![tag, short as u8],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, content].concat()
}

const PKCS7: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
const PKCS12_BAG: [u8; 10] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01];
const PKCS9_X509: [u8; 10] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];

/// A PKCS #12 store put together by hand: content of a kind (1 data, 6 encrypted), bags of a kind
/// (3 certificate, 1 key).
fn pkcs12(content_kind: u8, bag_kind: u8, names: &[&str]) -> Vec<u8> {
    let bags: Vec<u8> = names
        .iter()
        .flat_map(|name| {
            let octets = tlv(0xa0, &[&tlv(0x04, &[&der(name)])]);
            let certificate = tlv(0x30, &[&tlv(0x06, &[&PKCS9_X509]), &octets]);
            let kind = tlv(0x06, &[&PKCS12_BAG, &[bag_kind]]);
            tlv(0x30, &[&kind, &tlv(0xa0, &[&certificate]), &tlv(0x31, &[])])
        })
        .collect();
    let content = |kind: u8, bytes: &[u8]| {
        let octets = tlv(0xa0, &[&tlv(0x04, &[bytes])]);
        tlv(0x30, &[&tlv(0x06, &[&PKCS7, &[kind]]), &octets])
    };
    let safe = content(content_kind, &tlv(0x30, &[&bags]));
    tlv(
        0x30,
        &[&tlv(0x02, &[&[3]]), &content(1, &tlv(0x30, &[&safe]))],
    )
}

#[test]
fn the_ca_is_added_to_both_formats_of_java() {
    let weir = certificate("weir");
    for (format, store) in [
        ("JKS 2", jks(&["mozilla", "mozilla1"])),
        ("JKS 1", jks_of(1, &[(2, "mozilla"), (2, "mozilla1")])),
        ("PKCS #12", pkcs12(1, 3, &["mozilla", "mozilla1"])),
    ] {
        let merged = java::merged(&store, &weir).unwrap();
        assert_eq!(
            read_jks(&merged),
            ["mozilla", "mozilla1", "weir"],
            "{format}"
        );
        assert_eq!(
            java::merged(&merged, &weir).unwrap(),
            merged,
            "{format}: only once"
        );
    }
}

#[test]
fn a_store_that_is_no_plain_list_of_roots_is_left_alone() {
    for (store, found) in [
        (jks(&[]), "no trusted certificates"),
        (jks_of(2, &[(2, "mozilla"), (1, "key")]), "private keys"),
        (jks_of(3, &[]), "unknown version"),
        (pkcs12(6, 3, &["mozilla"]), "encrypted"),
        (pkcs12(1, 1, &["mozilla"]), "more than certificates"),
        (b"-----BEGIN CERTIFICATE-----".to_vec(), "neither"),
        (Vec::new(), "neither"),
    ] {
        let refused = java::merged(&store, &certificate("weir")).unwrap_err();
        assert!(refused.contains(found), "expected {found:?} in {refused:?}");
    }
}

#[test]
fn a_damaged_java_store_never_panics() {
    let stores = [jks(&["mozilla"]), pkcs12(1, 3, &["mozilla"])];
    for store in stores {
        for length in 0..store.len() {
            drop(java::merged(&store[..length], &certificate("weir")));
        }
        for at in 0..store.len() {
            for byte in [0, 0x7f, 0x84, 0xff] {
                let mut damaged = store.clone();
                damaged[at] = byte;
                drop(java::merged(&damaged, &certificate("weir")));
            }
        }
    }
}

/// Everything below a directory: files by content, links by target.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(snapshot(&path));
        } else if let Ok(target) = fs::read_link(&path) {
            found.insert(path, target.into_os_string().into_encoded_bytes());
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// Stands for the command of a distribution: joins what is there, links it, says how it was called.
const UPDATE: &str = r#"#!/bin/sh
set -e
cd "$(dirname "$0")/../../"
for anchor in ANCHORS/*.crt; do
    test -e "$anchor" || continue
    name=$(basename "$anchor" .crt)
    mkdir -p etc/ssl/certs
    ln -sf "/$anchor" "etc/ssl/certs/$name.pem"
    ln -sf "$name.pem" "etc/ssl/certs/0123-$name.0"
done
cat base.pem $(ls ANCHORS/*.crt 2>/dev/null) > bundle.pem
"#;

#[test]
fn the_ca_goes_into_each_distributions_store_and_out_again() {
    for (distribution, command, anchors) in [
        (
            "Debian",
            "usr/sbin/update-ca-certificates",
            "usr/local/share/ca-certificates",
        ),
        (
            "SUSE",
            "usr/sbin/update-ca-certificates",
            "etc/pki/trust/anchors",
        ),
        (
            "Fedora",
            "usr/bin/update-ca-trust",
            "etc/pki/ca-trust/source/anchors",
        ),
    ] {
        let machine = Machine::bare();
        machine.file(&format!("{anchors}/own.crt"), certificate("own"));
        machine.file("base.pem", certificate("distribution"));
        machine.command(command, &UPDATE.replace("ANCHORS", anchors));
        let root = machine.seen.root.as_path();
        let run = std::process::Command::new(machine.outside(command))
            .status()
            .unwrap();
        assert!(run.success());
        let before = snapshot(root);
        let trusted = || names(&fs::read(root.join("bundle.pem")).unwrap());

        let current = certificate("weir");
        let installed = |name| store::installed(root, &certificate(name));
        assert_eq!(installed("weir"), Installed::None);
        assert_eq!(store::install(root, &current).unwrap(), store::Change::Made);
        assert_eq!(trusted(), ["distribution", "own", "weir"], "{distribution}");
        assert_eq!(installed("weir"), Installed::This);
        assert_eq!(installed("new1"), Installed::Another);
        assert_eq!(store::install(root, &current).unwrap(), store::Change::None);

        let rotated = certificate("new1") + &current;
        assert_eq!(store::install(root, &rotated).unwrap(), store::Change::Made);
        assert_eq!(
            trusted(),
            ["distribution", "own", "weir", "new1"],
            "{distribution}"
        );
        assert_eq!(
            store::install(root, &certificate("new1")).unwrap(),
            store::Change::Made
        );
        assert_eq!(trusted(), ["distribution", "own", "new1"], "{distribution}");

        assert_eq!(store::uninstall(root).unwrap(), store::Change::Made);
        assert_eq!(snapshot(root), before, "{distribution}");
        assert_eq!(store::uninstall(root).unwrap(), store::Change::None);
    }
}

#[test]
fn the_hooks_of_debian_learn_that_the_ca_is_gone() {
    let machine = Machine::bare();
    let anchors = "usr/local/share/ca-certificates";
    machine.file(&format!("{anchors}/own.crt"), certificate("own"));
    machine.file("base.pem", "");
    machine.command(
        "usr/sbin/update-ca-certificates",
        &UPDATE.replace("ANCHORS", anchors),
    );
    let hook = "#!/bin/sh\ncat >> \"$(dirname \"$0\")/heard\"\n";
    machine.command("etc/ca-certificates/update.d/keystore", hook);
    let root = machine.seen.root.as_path();
    store::install(root, &certificate("weir")).unwrap();
    store::uninstall(root).unwrap();
    let heard = fs::read_to_string(root.join("etc/ca-certificates/update.d/heard")).unwrap();
    assert_eq!(
        heard,
        format!("-{}/etc/ssl/certs/weir-ca.pem\n", root.display())
    );
}

#[test]
fn a_store_that_cannot_be_changed_says_why() {
    let machine = Machine::bare();
    let root = machine.seen.root.as_path();
    let refused = store::install(root, &certificate("weir")).unwrap_err();
    assert!(matches!(refused, TrustError::NoStore { .. }), "{refused}");

    machine.file("usr/local/share/ca-certificates/own.crt", "");
    machine.command(
        "usr/sbin/update-ca-certificates",
        "#!/bin/sh\necho disk full >&2\nexit 3\n",
    );
    let refused = store::install(root, &certificate("weir"))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("update-ca-certificates") && refused.contains("disk full"),
        "{refused}"
    );
}
