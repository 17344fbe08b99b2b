//! The files that a program sees replaced.

use std::fs;

use super::machine::{BUNDLE, Machine, Pairs, certificate, names};
use super::stores::{jks, read_jks};
use crate::trust::{Overlay, OverlayKind};

const CERTIFI: &str = "lib/python3.12/site-packages/certifi/cacert.pem";

type Install = fn(&Machine);

fn targets(machine: &Machine) -> Vec<String> {
    let list = machine.overlays().list;
    list.iter()
        .map(|overlay| overlay.target.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn each_replacement_holds_what_was_there_and_the_ca() {
    let machine = Machine::debian();
    machine.file(&format!("/usr/{CERTIFI}"), certificate("mozilla"));
    machine.file("/etc/ssl/certs/java/cacerts", jks(&["mozilla"]));
    let overlays = machine.overlays();
    assert_eq!(overlays.notes, [""; 0]);
    let kinds: Vec<_> = overlays.list.iter().map(|overlay| overlay.kind).collect();
    assert_eq!(
        kinds,
        [OverlayKind::System, OverlayKind::Python, OverlayKind::Java]
    );
    let held = |overlay: &Overlay| {
        let bytes = fs::read(&overlay.replacement).unwrap();
        if overlay.kind == OverlayKind::Java {
            read_jks(&bytes)
        } else {
            names(&bytes)
        }
    };
    assert_eq!(held(&overlays.list[0]), ["distribution", "weir"]);
    assert_eq!(held(&overlays.list[1]), ["mozilla", "weir"]);
    assert_eq!(held(&overlays.list[2]), ["mozilla", "weir"]);
    assert_eq!(
        fs::read(machine.outside(BUNDLE)).unwrap(),
        certificate("distribution").as_bytes()
    );
}

#[test]
fn a_bundle_that_holds_the_ca_is_left_alone() {
    let machine = Machine::bare();
    machine.file(BUNDLE, certificate("distribution") + &certificate("weir"));
    assert_eq!(targets(&machine), [""; 0]);
}

#[test]
fn every_kind_of_python_installation_is_found() {
    let cases: [(&str, &Pairs); 16] = [
        ("/usr/lib/python3/dist-packages/certifi/cacert.pem", &[]),
        (
            "/usr/local/lib/python3.13/site-packages/pip/_vendor/certifi/cacert.pem",
            &[],
        ),
        (
            "/usr/lib64/python3.9/site-packages/botocore/cacert.pem",
            &[],
        ),
        (
            "/home/u/.local/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/home/u/project/.venv/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/home/u/project/venv/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/v/lib/python3.12/site-packages/certifi/cacert.pem",
            &[("VIRTUAL_ENV", "/v")],
        ),
        ("/c/ssl/cacert.pem", &[("CONDA_PREFIX", "/c")]),
        (
            "/c/envs/e/lib/python3.12/site-packages/certifi/cacert.pem",
            &[("CONDA_EXE", "/c/bin/conda")],
        ),
        (
            "/home/u/miniforge3/envs/e/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/home/u/.pyenv/versions/3.11.7/lib/python3.11/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/p/versions/3.11.7/lib/python3.11/site-packages/certifi/cacert.pem",
            &[("PATH", "/p/shims")],
        ),
        (
            "/home/u/.local/share/pipx/venvs/llm/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/home/u/.local/share/uv/tools/aider/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
        (
            "/t/aider/lib/python3.12/site-packages/certifi/cacert.pem",
            &[("UV_TOOL_DIR", "/t")],
        ),
        (
            "/home/u/.cache/pypoetry/virtualenvs/x/lib/python3.12/site-packages/certifi/cacert.pem",
            &[],
        ),
    ];
    for (path, variables) in cases {
        let mut machine = Machine::bare();
        machine.file(path, certificate("mozilla"));
        for (name, value) in variables {
            machine.set(name, value);
        }
        assert_eq!(targets(&machine), [path]);
    }
}

#[test]
fn the_environment_of_the_command_is_found() {
    let roots = format!("/opt/tool/{CERTIFI}");
    let cases: [(&str, Install); 5] = [
        ("/opt/tool/bin/python", |machine| {
            machine
                .command("/usr/bin/python3.12", "")
                .link("/opt/tool/bin/python", "/usr/bin/python3.12");
        }),
        ("../../../opt/tool/bin/run", |machine| {
            machine.command("/opt/tool/bin/run", "");
        }),
        ("tool", |machine| {
            machine
                .command("/opt/tool/bin/tool", "")
                .link("/usr/bin/tool", "../../opt/tool/bin/tool");
        }),
        ("script", |machine| {
            machine.command("/opt/tool/bin/python", "");
            machine.command(
                "/usr/bin/script",
                "#!/opt/tool/bin/python -E\nimport requests\n",
            );
        }),
        ("anything", |machine| {
            machine.command("/opt/tool/bin/python3.12", "");
            machine.link("/usr/bin/python3.12", "/opt/tool/bin/python3.12");
        }),
    ];
    for (program, install) in cases {
        let mut machine = Machine::bare();
        machine.file(&roots, certificate("mozilla"));
        assert_eq!(targets(&machine), [""; 0]);
        install(&machine);
        machine.seen.program = Some(program.into());
        assert_eq!(targets(&machine), [roots.as_str()], "{program}");
    }
}

#[test]
fn each_file_is_replaced_once_however_many_ways_lead_to_it() {
    let mut machine = Machine::debian();
    machine.link("/usr/lib/python3/dist-packages/certifi/cacert.pem", BUNDLE);
    let roots = "/v/lib/python3.12/site-packages/certifi/cacert.pem";
    machine.file(roots, certificate("mozilla"));
    machine
        .link("/v/lib64", "lib")
        .link("/home/u/project/.venv", "/v");
    machine.set("VIRTUAL_ENV", "/v").set("CONDA_PREFIX", "/v");
    assert_eq!(targets(&machine), [BUNDLE, roots]);
}

#[test]
fn every_kind_of_java_installation_is_found() {
    let cases: [(&str, &Pairs); 6] = [
        ("/etc/ssl/certs/java/cacerts", &[]),
        ("/etc/pki/ca-trust/extracted/java/cacerts", &[]),
        ("/j/lib/security/cacerts", &[("JAVA_HOME", "/j")]),
        ("/j/jre/lib/security/cacerts", &[("JAVA_HOME", "/j")]),
        (
            "/home/u/.sdkman/candidates/java/21/lib/security/cacerts",
            &[],
        ),
        ("/usr/lib/jvm/temurin-25/lib/security/cacerts", &[]),
    ];
    for (path, variables) in cases {
        let mut machine = Machine::bare();
        machine.file(path, jks(&["mozilla"]));
        for (name, value) in variables {
            machine.set(name, value);
        }
        assert_eq!(targets(&machine), [path]);
    }
    let machine = Machine::bare();
    machine
        .command("/opt/jdk/bin/java", "")
        .link("/etc/alternatives/java", "/opt/jdk/bin/java");
    machine.link("/usr/bin/java", "/etc/alternatives/java");
    machine.file("/etc/ssl/certs/java/cacerts", jks(&["mozilla"]));
    machine.link(
        "/opt/jdk/lib/security/cacerts",
        "/etc/ssl/certs/java/cacerts",
    );
    assert_eq!(targets(&machine), ["/etc/ssl/certs/java/cacerts"]);
}

#[test]
fn a_store_that_is_not_understood_is_left_alone_and_noted() {
    let machine = Machine::debian();
    machine.file("/etc/ssl/certs/java/cacerts", "nonsense");
    let overlays = machine.overlays();
    assert_eq!(overlays.list.len(), 1);
    assert!(
        overlays.notes[0].contains("/etc/ssl/certs/java/cacerts"),
        "{:?}",
        overlays.notes
    );
}

#[test]
fn the_search_is_bounded() {
    let machine = Machine::bare();
    for number in 0..300 {
        let tool = format!("/home/u/.local/share/uv/tools/{number:03}/{CERTIFI}");
        machine.file(&tool, certificate("mozilla"));
    }
    let overlays = machine.overlays();
    assert_eq!(overlays.list.len(), 256);
    assert!(overlays.notes[0].contains("256"), "{:?}", overlays.notes);
}
