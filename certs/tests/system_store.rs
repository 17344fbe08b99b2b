//! The trust store of a Debian system takes the CA and gives it up again, by Debian's own command.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions marked as tests for tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_certs::Authority;
use weir_certs::trust::store::{self, Change};

/// Debian's command on a copy of the store: it takes its directories as arguments.
const COMMAND: &str = r#"#!/bin/sh
root=$(cd "$(dirname "$0")/../.." && pwd)
exec /usr/sbin/update-ca-certificates --certsconf "$root/etc/ca-certificates.conf" \
    --certsdir "$root/usr/share/ca-certificates" --etccertsdir "$root/etc/ssl/certs" \
    --localcertsdir "$root/usr/local/share/ca-certificates" \
    --hooksdir "$root/etc/ca-certificates/update.d"
"#;

#[test]
fn debians_store_is_after_an_uninstall_what_it_was_before_the_install() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let make = |name: &str| {
        let directory = scratch.path().join(name);
        Authority::open_or_create(&directory, &[format!("{name}.example.com")]).unwrap()
    };
    // Two of its own: a bundle of one certificate is taken for a certificate when links are made.
    let (own, second, ca) = (make("own"), make("second"), make("ca"));
    for directory in [
        "etc/ssl/certs",
        "etc/ca-certificates/update.d",
        "usr/share/ca-certificates",
        "usr/local/share/ca-certificates",
        "usr/sbin",
    ] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("etc/ca-certificates.conf"), "# none\n").unwrap();
    let anchors = root.join("usr/local/share/ca-certificates");
    fs::write(anchors.join("own.crt"), own.certificate_pem()).unwrap();
    fs::write(anchors.join("second.crt"), second.certificate_pem()).unwrap();
    let command = root.join("usr/sbin/update-ca-certificates");
    fs::write(&command, COMMAND).unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Command::new(&command).status().unwrap().success());
    let before = snapshot(&root);
    let trusts = |authority: &Authority, directory: &Path| {
        let leaf = authority.certificate_pem();
        let file = scratch.path().join("checked.pem");
        fs::write(&file, leaf).unwrap();
        let verified = Command::new("openssl")
            .args(["verify", "-no-CAfile", "-CApath"])
            .args([directory, &file])
            .output()
            .expect("expected openssl to be installed, see README.md");
        verified.status.success()
    };
    let hashed = root.join("etc/ssl/certs");
    assert!(trusts(&own, &hashed) && !trusts(&ca, &hashed));

    assert_eq!(
        store::install(&root, &ca.trusted_pem()).unwrap(),
        Change::Made
    );
    assert!(trusts(&own, &hashed) && trusts(&ca, &hashed));
    let bundle = fs::read_to_string(hashed.join("ca-certificates.crt")).unwrap();
    assert!(bundle.contains(&ca.certificate_pem()), "{bundle}");
    assert_eq!(
        store::install(&root, &ca.trusted_pem()).unwrap(),
        Change::None
    );

    assert_eq!(store::uninstall(&root).unwrap(), Change::Made);
    let after = snapshot(&root);
    assert!(after == before, "changed: {:?}", changed(&before, &after));
    assert!(trusts(&own, &hashed) && !trusts(&ca, &hashed));
}

/// Everything below a directory: files by content, links by target.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if let Ok(target) = fs::read_link(&path) {
            found.insert(path, target.into_os_string().into_encoded_bytes());
        } else if path.is_dir() {
            found.extend(snapshot(&path));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// The paths at which two snapshots differ.
fn changed<'a>(
    before: &'a BTreeMap<PathBuf, Vec<u8>>,
    after: &'a BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<&'a PathBuf> {
    let paths = before.keys().chain(after.keys());
    paths
        .filter(|path| before.get(*path) != after.get(*path))
        .collect()
}
