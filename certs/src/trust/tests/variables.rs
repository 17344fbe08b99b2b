//! The variables that a program gets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::machine::{BUNDLE, Machine, certificate, names};
use crate::trust::{Files, JavaDelivery, TrustedBy, environment, runtimes};

const ADDITIVE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
const REPLACING: [&str; 11] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CODEX_CA_CERTIFICATE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "WEBSOCKET_CLIENT_CA_BUNDLE",
];

#[test]
fn what_adds_names_the_ca_and_what_replaces_names_a_merged_bundle() {
    let machine = Machine::debian();
    for name in ADDITIVE {
        assert_eq!(machine.roots_of(name).unwrap(), ["weir"], "{name}");
    }
    for name in REPLACING {
        assert_eq!(
            machine.roots_of(name).unwrap(),
            ["distribution", "weir"],
            "{name}"
        );
    }
    let environment = machine.environment();
    assert_eq!(environment.set.len(), ADDITIVE.len() + REPLACING.len());
    assert_eq!(environment.notes, [""; 0]);
}

#[test]
fn a_value_that_the_user_set_is_merged() {
    for name in ADDITIVE.iter().chain(&REPLACING) {
        for (value, path) in [
            ("/corp/roots.pem", "/corp/roots.pem"),
            ("r.pem", "/home/u/project/r.pem"),
        ] {
            let mut machine = Machine::debian();
            machine.file(path, certificate("corporate"));
            machine.set(name, value);
            assert_eq!(
                machine.roots_of(name).unwrap(),
                ["corporate", "weir"],
                "{name}={value}"
            );
        }
    }
}

#[test]
fn a_variable_holds_what_its_runtime_would_have_fallen_back_to() {
    let cases = [
        ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
        ("CURL_CA_BUNDLE", "PIP_CERT"),
        ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"),
        ("SSL_CERT_FILE", "CURL_CA_BUNDLE"),
        ("SSL_CERT_FILE", "CODEX_CA_CERTIFICATE"),
        ("SSL_CERT_FILE", "CARGO_HTTP_CAINFO"),
        ("SSL_CERT_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE"),
    ];
    for (set, reads) in cases {
        let mut machine = Machine::debian();
        machine.file("/corp.pem", certificate("corporate"));
        machine.set(set, "/corp.pem");
        assert_eq!(
            machine.roots_of(reads).unwrap(),
            ["corporate", "weir"],
            "{reads} of {set}"
        );
    }
}

#[test]
fn directories_of_roots_are_merged_and_their_variable_left_alone() {
    let mut machine = Machine::debian();
    machine
        .file("/corp/a.pem", certificate("a"))
        .file("/more/b.crt", certificate("b"));
    machine
        .set("SSL_CERT_DIR", "/corp:/more:/nowhere")
        .set("REQUESTS_CA_BUNDLE", "/corp");
    assert_eq!(
        machine.roots_of("SSL_CERT_FILE").unwrap(),
        ["distribution", "a", "b", "weir"]
    );
    assert_eq!(
        machine.roots_of("REQUESTS_CA_BUNDLE").unwrap(),
        ["a", "weir"]
    );
    assert_eq!(machine.roots_of("SSL_CERT_DIR"), None);
}

#[test]
fn a_value_that_cannot_be_read_is_noted_and_the_systems_roots_take_its_place() {
    let machine = Machine::debian();
    let status = Command::new("mkfifo")
        .arg(machine.outside("/pipe"))
        .status()
        .unwrap();
    assert!(status.success());
    machine.file("/directory/file", "");
    for value in ["/nowhere.pem", "/pipe", "/directory", "/dev/null/x"] {
        let mut machine_with = Machine::debian();
        machine_with.seen.root = machine.seen.root.clone();
        machine_with
            .set("SSL_CERT_FILE", value)
            .set("NODE_EXTRA_CA_CERTS", value);
        assert_eq!(
            machine_with.roots_of("SSL_CERT_FILE").unwrap(),
            ["distribution", "weir"]
        );
        assert_eq!(
            machine_with.roots_of("NODE_EXTRA_CA_CERTS").unwrap(),
            ["weir"]
        );
        let notes = machine_with.environment().notes;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().all(|note| note.contains(value)), "{notes:?}");
    }
}

#[test]
fn without_a_bundle_of_the_system_nothing_is_replaced_by_the_ca_alone() {
    let machine = Machine::bare();
    for name in REPLACING {
        assert_eq!(machine.roots_of(name), None, "{name}");
    }
    assert!(machine.roots_of("NODE_EXTRA_CA_CERTS").is_some());
    assert!(machine.environment().notes[0].contains("install the package ca-certificates"));

    let certifi = "/usr/local/lib/python3.13/site-packages/certifi/cacert.pem";
    machine.file(certifi, certificate("mozilla"));
    for name in REPLACING {
        assert_eq!(
            machine.roots_of(name).unwrap(),
            ["mozilla", "weir"],
            "{name}: a slim image"
        );
    }
}

#[test]
fn roots_that_were_added_to_certifi_go_on_being_trusted_by_python_only() {
    let mut machine = Machine::debian();
    let certifi = "lib/python3.12/site-packages/certifi/cacert.pem";
    let pips = "lib/python3.12/site-packages/pip/_vendor/certifi/cacert.pem";
    machine.file(&format!("/v/{certifi}"), certificate("corporate"));
    machine.file(&format!("/v/{pips}"), certificate("pip1"));
    machine.file(&format!("/usr/{certifi}"), certificate("distrusted"));
    machine.file(
        &format!("/home/u/project/.venv/{certifi}"),
        certificate("hostile"),
    );
    let python = [
        "REQUESTS_CA_BUNDLE",
        "AWS_CA_BUNDLE",
        "PIP_CERT",
        "HTTPLIB2_CA_CERTS",
    ];
    for name in python {
        assert_eq!(
            machine.roots_of(name).unwrap(),
            ["distribution", "weir"],
            "{name}: no active one"
        );
    }
    machine.set("VIRTUAL_ENV", "/v");
    for name in python {
        assert_eq!(
            machine.roots_of(name).unwrap(),
            ["corporate", "weir"],
            "{name}"
        );
    }
    assert_eq!(
        machine.roots_of("SSL_CERT_FILE").unwrap(),
        ["distribution", "weir"]
    );
}

#[test]
fn settings_files_that_name_roots_are_not_outranked() {
    let cases = [
        (
            "/home/u/.gitconfig",
            "[http]\n\tsslCAInfo = /corp.pem\n",
            "GIT_SSL_CAINFO",
        ),
        (
            "/etc/gitconfig",
            "[http]\nsslcainfo=/corp.pem\n",
            "GIT_SSL_CAINFO",
        ),
        (
            "/home/u/.config/pip/pip.conf",
            "[global]\ncert = /corp.pem\n",
            "PIP_CERT",
        ),
        (
            "/home/u/.cargo/config.toml",
            "[http]\ncainfo = \"c\"\n",
            "CARGO_HTTP_CAINFO",
        ),
        (
            "/home/u/.cargo/config.toml",
            "http.cainfo = \"c\"\n",
            "CARGO_HTTP_CAINFO",
        ),
    ];
    for (file, text, name) in cases {
        let mut machine = Machine::debian();
        machine.file(file, text);
        assert_eq!(machine.roots_of(name), None, "{file}");
        let notes = machine.environment().notes;
        assert!(notes.iter().any(|note| note.contains(file)), "{notes:?}");
        machine.file("/own.pem", certificate("own"));
        machine.set(name, "/own.pem");
        assert_eq!(
            machine.roots_of(name).unwrap(),
            ["own", "weir"],
            "the variable was set"
        );
    }
    let machine = Machine::debian();
    machine.file(
        "/home/u/.gitconfig",
        "[user]\n\tname = sslCAInfo\n# sslCAInfo\n",
    );
    assert!(machine.roots_of("GIT_SSL_CAINFO").is_some());
}

#[test]
fn roots_that_the_settings_of_amazons_sdks_name_are_merged() {
    let settings = "[default]\nca_bundle = /corp.pem\n[profile b]\nca_bundle=/gone.pem\n";
    for (file, variable) in [
        ("/home/u/.aws/config", None),
        ("/etc/aws", Some("/etc/aws")),
    ] {
        let mut machine = Machine::debian();
        machine.file(file, settings);
        machine.file("/corp.pem", certificate("corporate"));
        if let Some(path) = variable {
            machine.set("AWS_CONFIG_FILE", path);
        }
        let expected = ["corporate", "distribution", "weir"];
        assert_eq!(machine.roots_of("AWS_CA_BUNDLE").unwrap(), expected);
        let notes = machine.environment().notes;
        assert!(
            notes.iter().any(|note| note.contains("/gone.pem")),
            "{notes:?}"
        );
        machine.file("/own.pem", certificate("own"));
        machine.set("AWS_CA_BUNDLE", "/own.pem");
        assert_eq!(machine.roots_of("AWS_CA_BUNDLE").unwrap(), ["own", "weir"]);
    }
}

#[test]
fn the_files_are_for_everyone_and_named_after_their_content() {
    let machine = Machine::debian();
    let first = machine.environment();
    assert_eq!(first, machine.environment());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&machine.directory()), 0o755);
    let entries: Vec<_> = fs::read_dir(machine.directory())
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(
        entries.len(),
        2,
        "the CA, and one bundle for all variables: {entries:?}"
    );
    for entry in entries {
        assert_eq!(mode(&entry.path()), 0o644);
        assert!(!fs::read_to_string(entry.path()).unwrap().contains("KEY"));
    }
    machine.file(BUNDLE, certificate("newer"));
    let second = machine.environment();
    let held = |environment: &super::super::Environment| {
        names(&fs::read(&environment.set["SSL_CERT_FILE"]).unwrap())
    };
    assert_eq!(held(&second), ["newer", "weir"]);
    assert_eq!(
        held(&first),
        ["distribution", "weir"],
        "running programs keep theirs"
    );
}

/// A file as long as this in the directory of `machine`, last asked for so many days ago.
fn old_file(machine: &Machine, name: &str, bytes: u64, days: u64) -> std::path::PathBuf {
    let path = machine.directory().join(name);
    let file = fs::File::create(&path).unwrap();
    file.set_len(bytes).unwrap();
    let age = std::time::Duration::from_secs(days * 24 * 60 * 60);
    file.set_modified(std::time::SystemTime::now() - age)
        .unwrap();
    path
}

#[test]
fn files_that_nobody_asked_for_in_a_week_are_removed_unless_they_are_needed() {
    let machine = Machine::debian();
    let kept = machine.files();
    let stale = old_file(&machine, "bundle-0.pem", 0, 8);
    let young = old_file(&machine, "bundle-1.pem", 0, 6);
    let named = old_file(&machine, "bundle-2.pem", 0, 100);
    // A Weir that runs for longer holds its own.
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 24 * 60 * 60);
    let of_kept = fs::File::open(kept.ca()).unwrap();
    of_kept.set_modified(then).unwrap();
    let mut program = Command::new("sleep")
        .arg("60")
        .env("SSL_CERT_FILE", &named)
        .spawn()
        .unwrap();
    let other = || Files::with_certificates(&machine.directory(), &certificate("other")).unwrap();
    drop(other());
    assert!(!stale.exists() && young.exists() && named.exists() && kept.ca().exists());
    program.kill().unwrap();
    program.wait().unwrap();
    let ca = kept.ca().to_owned();
    drop(kept);
    drop(other());
    assert!(!named.exists() && !ca.exists());
}

#[test]
fn the_oldest_files_that_nobody_needs_make_room() {
    let machine = Machine::debian();
    drop(machine.files());
    let large = |name, days| old_file(&machine, name, 30 << 20, days);
    let [fresh, newer, older] =
        [("0.pem", 0), ("1.pem", 1), ("2.pem", 2)].map(|(n, d)| large(n, d));
    drop(machine.files());
    assert!(fresh.exists() && newer.exists() && !older.exists());
    // Those of a run that is about to start stay, whatever the others take.
    let another = large("3.pem", 0);
    drop(machine.files());
    assert!(fresh.exists() && another.exists() && !newer.exists());
}

#[test]
fn a_directory_that_others_cannot_enter_is_told() {
    let machine = Machine::debian();
    let files = machine.files();
    let state = machine.directory().parent().unwrap().to_owned();
    // The scratch directory around it is closed as well, so it is the answer either way.
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let closed = files.closed_at().unwrap();
    assert!(machine.directory().starts_with(closed) && closed != machine.directory());
    assert_eq!(
        fs::metadata(closed).unwrap().permissions().mode() & 0o001,
        0
    );
}

#[test]
fn java_is_told_by_an_option_only_when_asked_for() {
    let mut machine = Machine::debian();
    let told = |machine: &Machine| {
        environment(&machine.seen, &machine.files(), JavaDelivery::Option).unwrap()
    };
    assert!(
        !told(&machine).set.contains_key("JAVA_TOOL_OPTIONS"),
        "no Java"
    );
    machine.file(
        "/etc/ssl/certs/java/cacerts",
        super::stores::jks(&["mozilla"]),
    );
    assert!(
        !machine.environment().set.contains_key("JAVA_TOOL_OPTIONS"),
        "not asked for"
    );
    let option = told(&machine).set["JAVA_TOOL_OPTIONS"]
        .to_str()
        .unwrap()
        .to_owned();
    let store = option.strip_prefix("-Djavax.net.ssl.trustStore=").unwrap();
    assert_eq!(
        super::stores::read_jks(&fs::read(store).unwrap()),
        ["mozilla", "weir"]
    );

    machine.set("JAVA_TOOL_OPTIONS", "-Xmx1g");
    assert_eq!(
        told(&machine).set["JAVA_TOOL_OPTIONS"],
        format!("-Xmx1g {option}").as_str()
    );
    machine.set("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/own");
    let environment = told(&machine);
    assert!(!environment.set.contains_key("JAVA_TOOL_OPTIONS"));
    assert!(
        environment
            .notes
            .iter()
            .any(|note| note.contains("keytool"))
    );
}

#[test]
fn the_report_names_each_runtimes_way() {
    let machine = Machine::debian();
    machine
        .command("/usr/bin/node", "")
        .command("/usr/bin/curl", "");
    machine.file(
        "/etc/ssl/certs/java/cacerts",
        super::stores::jks(&["mozilla"]),
    );
    let report = runtimes(
        &machine.seen,
        &machine.environment(),
        &machine.overlays(),
        &certificate("weir"),
    );
    let way = |name: &str| {
        let runtime = report
            .iter()
            .find(|runtime| runtime.runtime == name)
            .unwrap();
        (
            runtime
                .found
                .as_ref()
                .map(|path| path.to_str().unwrap().to_owned()),
            runtime.by,
        )
    };
    let found = |path: &str| Some(path.to_owned());
    assert_eq!(
        way("Node"),
        (
            found("/usr/bin/node"),
            TrustedBy::Variable("NODE_EXTRA_CA_CERTS")
        )
    );
    assert_eq!(
        way("curl"),
        (
            found("/usr/bin/curl"),
            TrustedBy::Variable("CURL_CA_BUNDLE")
        )
    );
    assert_eq!(way("Go"), (None, TrustedBy::Variable("SSL_CERT_FILE")));
    assert_eq!(way("Java"), (None, TrustedBy::Overlay));
    assert_eq!(
        way("compiled-in or pinned roots"),
        (None, TrustedBy::Nothing)
    );
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let machine = Machine::debian();
    let occupied = machine.outside("/file");
    fs::write(&occupied, "").unwrap();
    let refused = Files::with_certificates(&occupied.join("trust"), "")
        .unwrap_err()
        .to_string();
    assert!(refused.contains(occupied.to_str().unwrap()), "{refused}");
}
