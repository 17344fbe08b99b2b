//! Real runtimes accept what the CA signs, given the variables or the replaced files alone, and all
//! but Java refuse what a thief of its key would sign. A command that is missing fails the test:
//! `README.md` names the packages.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests"
)]

#[path = "runtimes/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use server::{COVERED, FORGED, GREETING, Server};
use tempfile::TempDir;
use weir_certs::Authority;
use weir_certs::trust::{Files, JavaDelivery, OverlayKind, Surroundings, environment, overlays};

/// A CA for the host names of a large catalogue, its public files, and a server that uses it.
struct Setup {
    scratch: TempDir,
    authority: Authority,
    files: Files,
    server: Server,
}

impl Setup {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let regions = (0..300).map(|n| format!("api.region-{n}.example.com"));
        let permitted: Vec<String> = regions.chain([COVERED.to_owned()]).collect();
        let authority = Authority::open_or_create(&scratch.path().join("ca"), &permitted).unwrap();
        let files = Files::open(&scratch.path().join("trust"), &authority).unwrap();
        let key = fs::read_to_string(scratch.path().join("ca/authority.pem")).unwrap();
        let server = Server::start(&authority, &key);
        Self {
            scratch,
            authority,
            files,
            server,
        }
    }

    /// One for all tests of this file.
    fn shared() -> &'static Self {
        static SETUP: OnceLock<Setup> = OnceLock::new();
        SETUP.get_or_init(Self::new)
    }

    fn surroundings() -> Surroundings {
        Surroundings {
            root: PathBuf::from("/"),
            environment: plain_environment(),
            directory: std::env::temp_dir(),
            program: None,
        }
    }

    /// The variables that a program gets, and with them what it had.
    fn told(&self, java: JavaDelivery) -> BTreeMap<OsString, OsString> {
        let told = environment(&Self::surroundings(), &self.files, java).unwrap();
        let mut all = plain_environment();
        all.extend(
            told.set
                .into_iter()
                .map(|(name, value)| (name.into(), value)),
        );
        all
    }

    /// Has a client greet the server: with what makes it trust the CA it must work, without that
    /// it must not, and where the certificate is for a name that the CA may not sign, it must not
    /// either, and for that reason, unless the README says otherwise of its runtime.
    fn check(&self, client: &Client<'_>, told: &BTreeMap<OsString, OsString>) {
        let name = client.name;
        let port = self.server.port();
        let greeted = client.run(COVERED, port, told);
        assert!(
            said(&greeted, GREETING),
            "{name} trusts the CA: {greeted:?}"
        );

        let untold = client.run(COVERED, port, &plain_environment());
        assert!(
            !said(&untold, GREETING),
            "{name} was told nothing: {untold:?}"
        );

        let forged = client.run(FORGED, port, told);
        match client.refusal {
            Some(refusal) => {
                assert!(
                    !said(&forged, GREETING),
                    "{name} accepts a forgery: {forged:?}"
                );
                assert!(
                    said(&forged, refusal),
                    "{name} has another reason: {forged:?}"
                );
            }
            None => assert!(said(&forged, GREETING), "{name} has learned: {forged:?}"),
        }
    }
}

/// A command that greets the server of a host at a port of the loopback address.
struct Client<'a> {
    name: &'a str,
    /// `HOST` and `PORT` stand for those.
    command: &'a [&'a str],
    /// How it says that a name constraint is violated. `None` for Java, which reads none from
    /// roots: to RFC 5280 (section 6.1.1) a root is a name and a key.
    refusal: Option<&'a str>,
}

impl Client<'_> {
    fn run(&self, host: &str, port: u16, environment: &BTreeMap<OsString, OsString>) -> Output {
        let port = port.to_string();
        let mut words = self
            .command
            .iter()
            .map(|word| word.replace("HOST", host).replace("PORT", &port));
        let program = words.next().unwrap();
        Command::new(&program)
            .args(words)
            .env_clear()
            .envs(environment)
            .output()
            .unwrap_or_else(|error| {
                panic!("expected {program} to be installed, see README.md: {error}")
            })
    }
}

/// What a program needs to start, and nothing about trust.
fn plain_environment() -> BTreeMap<OsString, OsString> {
    ["PATH", "HOME", "PYENV_VERSION", "LANG"]
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

fn said(output: &Output, text: &str) -> bool {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).contains(text)
}

#[test]
fn curl_trusts_the_ca_for_its_hosts_alone() {
    let setup = Setup::shared();
    let client = Client {
        name: "curl",
        command: &[
            "curl",
            "-sSv",
            "--resolve",
            "HOST:PORT:127.0.0.1",
            "https://HOST:PORT/",
        ],
        refusal: Some("permitted subtree violation"),
    };
    setup.check(&client, &setup.told(JavaDelivery::Overlay));
}

#[test]
fn openssl_trusts_the_ca_for_its_hosts_alone() {
    let setup = Setup::shared();
    let script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -ign_eof -x509_strict \
                  -verify_return_error -verify_hostname HOST -servername HOST -connect 127.0.0.1:PORT";
    let client = Client {
        name: "openssl",
        command: &["sh", "-c", script],
        refusal: Some("permitted subtree violation"),
    };
    setup.check(&client, &setup.told(JavaDelivery::Overlay));
}

#[test]
fn python_in_strict_mode_trusts_the_ca_for_its_hosts_alone() {
    let setup = Setup::shared();
    let script = "
import socket, ssl
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(('127.0.0.1', PORT)) as plain:
    with context.wrap_socket(plain, server_hostname='HOST') as secured:
        secured.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
        print(secured.makefile().read())
";
    let client = Client {
        name: "Python",
        command: &["python3", "-c", script],
        refusal: Some("permitted subtree violation"),
    };
    setup.check(&client, &setup.told(JavaDelivery::Overlay));
}

/// `requests` reads certifi's list, unless its variable names another.
const REQUESTS: &str = "
import socket
try:
    import requests
except ImportError:
    from pip._vendor import requests
socket.getaddrinfo = lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', PORT))]
print(requests.get('https://HOST:PORT/').text)
";

#[test]
fn requests_trusts_the_ca_for_its_hosts_alone() {
    let setup = Setup::shared();
    let client = Client {
        name: "requests",
        command: &["python3", "-c", REQUESTS],
        refusal: Some("permitted subtree violation"),
    };
    setup.check(&client, &setup.told(JavaDelivery::Overlay));
}

#[test]
fn node_trusts_the_ca_for_its_hosts_alone() {
    let setup = Setup::shared();
    let script = "
require('https').get({ host: '127.0.0.1', port: PORT, servername: 'HOST', headers: { host: 'HOST' } },
    answer => answer.pipe(process.stdout));
";
    let client = Client {
        name: "Node",
        command: &["node", "-e", script],
        refusal: Some("permitted subtree violation"),
    };
    setup.check(&client, &setup.told(JavaDelivery::Overlay));
}

const JAVA: &str = r#"
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.List;
import javax.net.ssl.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        var plain = new Socket("127.0.0.1", Integer.parseInt(arguments[1]));
        var factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        try (var secured = (SSLSocket) factory.createSocket(plain, arguments[0], plain.getPort(), true)) {
            var parameters = secured.getSSLParameters();
            parameters.setServerNames(List.of(new SNIHostName(arguments[0])));
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            secured.setSSLParameters(parameters);
            secured.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
            System.out.write(secured.getInputStream().readAllBytes());
            System.out.flush();
        }
    }
}
"#;

fn compile_java(directory: &Path) -> &str {
    fs::create_dir_all(directory).unwrap();
    let source = directory.join("Client.java");
    fs::write(&source, JAVA).unwrap();
    let compiled = Command::new("javac").arg(&source).output();
    let compiled = compiled.expect("expected javac to be installed, see README.md");
    assert!(compiled.status.success(), "{compiled:?}");
    directory.to_str().unwrap()
}

#[test]
fn java_told_by_its_option_trusts_the_ca() {
    let setup = Setup::shared();
    let classes = setup.scratch.path().join("told");
    let client = Client {
        name: "Java",
        command: &[
            "java",
            "-cp",
            compile_java(&classes),
            "Client",
            "HOST",
            "PORT",
        ],
        refusal: None,
    };
    setup.check(&client, &setup.told(JavaDelivery::Option));
}

/// Every Java of the machine is given the replacement of both formats that its store may have.
#[test]
fn every_java_reads_the_replacement_of_its_store() {
    let setup = Setup::shared();
    let classes = setup.scratch.path().join("replaced");
    let classes = compile_java(&classes);
    let root = setup.scratch.path().join("root");
    let store = root.join("etc/ssl/certs/java/cacerts");
    fs::create_dir_all(store.parent().unwrap()).unwrap();
    let other = other_root(setup.scratch.path());
    for format in [
        &["JKS"][..],
        &["PKCS12", "-J-Dkeystore.pkcs12.macAlgorithm=NONE"],
    ] {
        make_store(&store, &other, format);
        let seen = Surroundings {
            root: root.clone(),
            ..Setup::surroundings()
        };
        let found = overlays(&seen, &setup.files).unwrap();
        let [replaced] = found.list.as_slice() else {
            panic!("expected one overlay: {found:?}")
        };
        assert_eq!(replaced.kind, OverlayKind::Java);
        let option = format!(
            "-Djavax.net.ssl.trustStore={}",
            replaced.replacement.display()
        );
        for java in javas() {
            let client = Client {
                name: java.to_str().unwrap(),
                command: &[
                    java.to_str().unwrap(),
                    "-cp",
                    classes,
                    "Client",
                    "HOST",
                    "PORT",
                ],
                refusal: None,
            };
            let mut told = plain_environment();
            told.insert("JAVA_TOOL_OPTIONS".into(), option.clone().into());
            setup.check(&client, &told);
        }
        // keytool checks the digest, and that nothing was lost.
        let listed = Command::new("keytool")
            .args(["-list", "-storepass", "changeit", "-keystore"])
            .arg(&replaced.replacement)
            .output()
            .unwrap();
        assert!(said(&listed, "2 entries"), "{listed:?}");
    }
}

fn make_store(store: &Path, certificate: &Path, format: &[&str]) {
    drop(fs::remove_file(store));
    let made = Command::new("keytool")
        .args([
            "-importcert",
            "-noprompt",
            "-alias",
            "other",
            "-storepass",
            "changeit",
        ])
        .args([
            "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE",
            "-storetype",
        ])
        .args(format)
        .arg("-file")
        .arg(certificate)
        .arg("-keystore")
        .arg(store)
        .output()
        .expect("expected keytool to be installed, see README.md");
    assert!(made.status.success(), "{made:?}");
}

/// A root that has nothing to do with this CA.
fn other_root(scratch: &Path) -> PathBuf {
    let directory = scratch.join("other");
    let other = Authority::open_or_create(&directory, &["other.example".to_owned()]).unwrap();
    let path = scratch.join("other.pem");
    fs::write(&path, other.certificate_pem()).unwrap();
    path
}

/// The installations below `/usr/lib/jvm`, of which there must be one.
fn javas() -> Vec<PathBuf> {
    let installed = fs::read_dir("/usr/lib/jvm").unwrap();
    let found: Vec<PathBuf> = installed
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.path().join("bin/java"))
        .filter(|java| java.is_file())
        .collect();
    assert!(!found.is_empty(), "expected a Java, see README.md");
    found
}

/// The replaced list of certifi is what a mount shows in its place.
#[test]
fn requests_reads_the_replacement_of_its_list() {
    let setup = Setup::shared();
    let root = setup.scratch.path().join("python");
    let certifi = "/usr/lib/python3/dist-packages/certifi/cacert.pem";
    let list = root.join(certifi.trim_start_matches('/'));
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::copy(other_root(setup.scratch.path()), &list).unwrap();
    let seen = Surroundings {
        root,
        ..Setup::surroundings()
    };
    let found = overlays(&seen, &setup.files).unwrap();
    assert_eq!(found.list[0].target, Path::new(certifi));
    let mut told = plain_environment();
    let replacement: &OsStr = found.list[0].replacement.as_ref();
    told.insert("REQUESTS_CA_BUNDLE".into(), replacement.to_owned());
    let client = Client {
        name: "requests",
        command: &["python3", "-c", REQUESTS],
        refusal: Some("permitted subtree violation"),
    };
    setup.check(&client, &told);
}

/// The commands that administrators use see what the CA says it is.
#[test]
fn openssl_shows_a_constrained_ca() {
    let setup = Setup::shared();
    let shown = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-fingerprint", "-sha256", "-in"])
        .arg(setup.files.ca())
        .output()
        .unwrap();
    let fingerprint = String::from_utf8_lossy(&shown.stdout)
        .replace(':', "")
        .to_lowercase();
    assert!(
        fingerprint.contains(&setup.authority.fingerprint_sha256()),
        "{shown:?}"
    );
    for expected in [
        "CA:TRUE, pathlen:0",
        "X509v3 Name Constraints: critical",
        "IP:0.0.0.0/0.0.0.0",
        COVERED,
        "Certificate Sign, CRL Sign",
        "ecdsa-with-SHA256",
        "Subject Key Identifier",
    ] {
        assert!(said(&shown, expected), "expected {expected:?} in {shown:?}");
    }
}
