//! Programs as they are found on machines: each makes one call, with its own idea of whom to trust.

use std::{fs, path::Path, process::Command};

use http::Version;

use crate::sdks::installation;
use crate::world::{Providers, Setup, World, installed, success};

/// A call for the shell: `$BODY` is what is sent.
fn call(script: &str, world: &World) -> String {
    let mut weir = world.run(&[], ["sh", "-ec", script]);
    weir.env("BODY", BODY).env("JAVA", world.path("Call.java"));
    weir.env("PATH", path_with_the_installation());
    success(&world.output(weir))
}

/// `python` is that of the installation; the rest are the machine's.
fn path_with_the_installation() -> std::ffi::OsString {
    let scripts = installation().join("python/bin");
    let path = std::env::var_os("PATH").unwrap();
    std::env::join_paths([scripts].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

fn one_call_is_inspected(script: &str) {
    installation();
    let world = World::new(Setup::default());
    fs::write(world.path("Call.java"), JAVA).unwrap();
    let said = call(script, &world);
    assert!(said.contains("\"type\":\"message\""), "{script}: {said}");
    world.books_agree();
    assert_eq!(world.simulator.bill().len(), 1, "{script}");
}

#[test]
fn curl_gets_the_http_version_that_it_asks_for_and_so_does_the_provider() {
    installed("curl", "curl");
    installation();
    for (option, version) in [
        ("--http1.1", Version::HTTP_11),
        ("--http2", Version::HTTP_2),
    ] {
        let world = World::new(Setup::default());
        let script = format!(
            r#"curl -sS {option} -w '\n%{{http_version}}' -H 'x-api-key: k' -H 'anthropic-version: 2023-06-01' \
               -H 'content-type: application/json' -d "$BODY" https://api.anthropic.com/v1/messages"#
        );
        let said = call(&script, &world);
        let shown = if version == Version::HTTP_2 {
            "\n2"
        } else {
            "\n1.1"
        };
        assert!(said.ends_with(shown), "{said}");
        assert_eq!(world.simulator.received()[0].version, version);
        world.books_agree();
    }
}

/// As a VPN does, which has no default route.
#[test]
fn an_ipv6_route_that_comes_later_is_noticed() {
    installed("curl", "curl");
    installation();
    let world = World::new(Setup {
        providers: Providers::Unreachable6,
        ..Setup::default()
    });
    let script = r#"
        call() { curl -sS --max-time 2 -H 'x-api-key: k' -H 'anthropic-version: 2023-06-01' \
               -H 'content-type: application/json' -d "$BODY" https://api.anthropic.com/v1/messages; }
        call 2>/dev/null || echo unreachable
        ip link add vpn type veth peer name far
        ip link set vpn up
        ip link set far up
        ip -6 route add 2000::/3 dev vpn
        for attempt in 1 2 3 4 5 6 7 8 9; do call && break; done"#;
    let said = call(script, &world);
    assert!(said.starts_with("unreachable"), "{said}");
    assert!(said.contains("\"type\":\"message\""), "{said}");
    world.books_agree();
    assert_eq!(world.records().len(), 1);
}

/// An interpreter runs many programs: the first of these brings roots of its own.
#[test]
fn what_one_script_trusts_says_nothing_about_another() {
    installation();
    let world = World::new(Setup::default());
    fs::write(world.path("pins.py"), PINS).unwrap();
    fs::write(world.path("calls.py"), CALLS).unwrap();
    let script = format!(
        "cd '{}'; python pins.py; python pins.py; python calls.py",
        world.path("").display()
    );
    assert_eq!(call(&script, &world), "rejected\nrejected\ncalled\n");
    world.books_agree();
    assert_eq!(world.records().len(), 1);
}

/// It passes, and no cap counts it: so it is told.
#[test]
fn a_call_that_cannot_be_read_is_in_the_report_of_what_was_not_inspected() {
    installed("curl", "curl");
    installation();
    let world = World::new(Setup::default());
    let script = r#"curl -sS -o /dev/null -H 'content-type: application/json' -d "$BODY x" https://api.anthropic.com/v1/messages"#;
    call(script, &world);
    let mut report = world.weir("report");
    report.args(["bypass", "--json"]);
    let said = success(&world.output(report));
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["total"]["count"], 1, "{said}");
    assert!(said.contains("request_unreadable"), "{said}");
}

/// What the other tests of this tier rest on.
#[test]
fn without_weir_nobody_answers() {
    let curl = installed("curl", "curl");
    let world = World::new(Setup::default());
    let mut direct = Command::new(curl);
    direct.args([
        "-sS",
        "--insecure",
        "--noproxy",
        "*",
        "https://api.anthropic.com/",
    ]);
    let output = world.output(direct);
    // "Failed to connect to host."
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(world.simulator.connections(), 0);
}

#[test]
fn openssl_verifies_the_name() {
    installed("openssl", "openssl");
    one_call_is_inspected(
        r#"printf 'POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s' "${#BODY}" "$BODY" |
           openssl s_client -quiet -ign_eof -verify_return_error -verify_hostname api.anthropic.com \
           -servername api.anthropic.com -connect api.anthropic.com:443"#,
    );
}

#[test]
fn node_fetches() {
    installed("node", "nodejs");
    one_call_is_inspected(
        r#"node -e 'fetch("https://api.anthropic.com/v1/messages", { method: "POST", body: process.env.BODY, headers: {
             "x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json" } })
             .then((answer) => answer.text()).then(console.log)'"#,
    );
}

/// What each library of Python does by itself, in an environment of its own, and in the machine's.
#[test]
fn python_calls_with_each_idea_of_whom_to_trust() {
    let prelude = "
import os
URL = 'https://api.anthropic.com/v1/messages'
BODY = os.environ['BODY'].encode()
HEADERS = {'x-api-key': 'k', 'anthropic-version': '2023-06-01', 'content-type': 'application/json'}
";
    let openers = [
        (
            "python",
            "import requests; print(requests.post(URL, data=BODY, headers=HEADERS).text)",
        ),
        (
            "python",
            "import certifi, requests; print(requests.post(URL, data=BODY, headers=HEADERS, verify=certifi.where()).text)",
        ),
        (
            "python",
            "import httpx2; print(httpx2.post(URL, content=BODY, headers=HEADERS).text)",
        ),
        (
            "python",
            "import httpx; print(httpx.post(URL, content=BODY, headers=HEADERS).text)",
        ),
        (
            "python",
            "import certifi, ssl, httpx2; context = ssl.create_default_context(cafile=certifi.where())\n\
             print(httpx2.post(URL, content=BODY, headers=HEADERS, verify=context).text)",
        ),
        ("python", URLLIB),
        ("/usr/bin/python3", URLLIB),
    ];
    for (python, opener) in openers {
        one_call_is_inspected(&format!("{python} - <<'END'\n{prelude}{opener}\nEND\n"));
    }
}

const URLLIB: &str =
    "from urllib.request import *; print(urlopen(Request(URL, BODY, HEADERS)).read().decode())";

#[test]
fn java_runs_a_single_source_file() {
    installed("java", "default-jdk-headless");
    one_call_is_inspected(r#"java "$JAVA""#);
}

#[test]
fn the_bundle_of_certifi_is_another_for_the_command_alone() {
    let bundle = "python -c 'import certifi; print(open(certifi.where()).read())'";
    let certifi = installation();
    let world = World::new(Setup::default());
    let files: Vec<_> = [
        find(certifi, "cacert.pem"),
        "/etc/ssl/certs/ca-certificates.crt".into(),
    ]
    .map(|path| (path.clone(), fs::read(path).unwrap()))
    .into();
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let inside = call(
        &format!("{bundle}; echo =====; cat \"$NODE_EXTRA_CA_CERTS\""),
        &world,
    );
    let (bundle, ca) = inside.split_once("=====").unwrap();
    assert!(ca.contains("BEGIN CERTIFICATE"));
    assert!(bundle.contains(ca.trim()), "the CA is not in the bundle");
    for (path, before) in files {
        assert!(fs::read(&path).unwrap() == before, "{}", path.display());
    }
    assert_eq!(
        fs::read_to_string("/proc/thread-self/mounts").unwrap(),
        mounts
    );
}

/// The file of this name in `certifi`, wherever Python's version puts it.
fn find(installation: &Path, name: &str) -> std::path::PathBuf {
    let libraries = fs::read_dir(installation.join("python/lib")).unwrap();
    libraries
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .join("site-packages/certifi")
                .join(name)
        })
        .find(|path| path.exists())
        .unwrap()
}

const BODY: &str = r#"{"model":"claude-haiku-5-5","max_tokens":50,"messages":[{"role":"user","content":"How high is the water?"}]}"#;

const JAVA: &str = r#"
import java.net.URI;
import java.net.http.*;

class Call {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create("https://api.anthropic.com/v1/messages"))
            .header("x-api-key", "k")
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(System.getenv("BODY")))
            .build();
        System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
"#;

/// Trusts nobody.
const PINS: &str = r#"
import socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
try:
    context.wrap_socket(socket.create_connection(("api.anthropic.com", 443)), server_hostname="api.anthropic.com")
except ssl.SSLCertVerificationError:
    print("rejected")
"#;

const CALLS: &str = r#"
import os, urllib.request
fields = {"content-type": "application/json", "x-api-key": "k", "anthropic-version": "2023-06-01"}
url = "https://api.anthropic.com/v1/messages"
urllib.request.urlopen(urllib.request.Request(url, os.environ["BODY"].encode(), fields)).read()
print("called")
"#;
