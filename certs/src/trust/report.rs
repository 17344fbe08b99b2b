//! What each runtime of a machine trusts, and by which way it learns of the CA.

use std::fmt;
use std::path::PathBuf;

use super::store::{self, Installed};
use super::{Environment, OverlayKind, Overlays, Surroundings};

/// One runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeTrust {
    /// Its name.
    pub runtime: &'static str,
    /// The command or file that was found; `None` where the runtime is not installed.
    pub found: Option<PathBuf>,
    /// How it learns of the CA.
    pub by: TrustedBy,
    /// What a user should know.
    pub note: &'static str,
}

/// By which way a runtime learns of the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedBy {
    /// By this variable, which `weir run` sets.
    Variable(&'static str),
    /// By a file that `weir run` lays over the runtime's own.
    Overlay,
    /// By the trust store of the system, into which `weir ca install` has put the CA.
    SystemStore,
    /// Not at all: its calls pass uninspected, and are counted.
    Nothing,
}

impl fmt::Display for TrustedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(formatter, "variable {name}"),
            Self::Overlay => formatter.write_str("overlaid file"),
            Self::SystemStore => formatter.write_str("system trust store"),
            Self::Nothing => formatter.write_str("nothing"),
        }
    }
}

/// What the runtimes in `surroundings` would trust of the CA `ca_pem` when started with `environment`
/// and `overlays`.
#[must_use]
pub fn runtimes(
    surroundings: &Surroundings,
    environment: &Environment,
    overlays: &Overlays,
    ca_pem: &str,
) -> Vec<RuntimeTrust> {
    let installed = store::installed(&surroundings.root, ca_pem) == Installed::This;
    RUNTIMES
        .iter()
        .map(|runtime| {
            let overlaid = |kind| overlays.list.iter().find(|overlay| overlay.kind == kind);
            let own = runtime.own_file.and_then(overlaid);
            let variable = runtime
                .variables
                .iter()
                .find(|name| environment.set.contains_key(**name));
            let by = match (own, variable) {
                (Some(_), _) if runtime.own_file != Some(OverlayKind::System) => TrustedBy::Overlay,
                (_, Some(name)) => TrustedBy::Variable(name),
                (Some(_), None) => TrustedBy::Overlay,
                (None, None) if installed && runtime.reads_system => TrustedBy::SystemStore,
                (None, None) => TrustedBy::Nothing,
            };
            RuntimeTrust {
                runtime: runtime.name,
                found: match runtime.command {
                    Some(name) => surroundings.command(name.as_ref()),
                    None => own.map(|overlay| overlay.target.clone()),
                },
                by,
                note: runtime.note,
            }
        })
        .collect()
}

struct Runtime {
    name: &'static str,
    command: Option<&'static str>,
    variables: &'static [&'static str],
    /// Whose overlay reaches it.
    own_file: Option<OverlayKind>,
    reads_system: bool,
    note: &'static str,
}

const RUNTIMES: [Runtime; 14] = [
    Runtime {
        name: "OpenSSL",
        command: Some("openssl"),
        variables: &["SSL_CERT_FILE"],
        own_file: Some(OverlayKind::System),
        reads_system: true,
        note: "also Ruby, PHP, .NET and most of what is written in C",
    },
    Runtime {
        name: "curl",
        command: Some("curl"),
        variables: &["CURL_CA_BUNDLE"],
        own_file: Some(OverlayKind::System),
        reads_system: true,
        note: "--cacert and ~/.curlrc outrank the variable",
    },
    Runtime {
        name: "Go",
        command: Some("go"),
        variables: &["SSL_CERT_FILE"],
        own_file: Some(OverlayKind::System),
        reads_system: true,
        note: "programs read the roots once, at their first connection",
    },
    Runtime {
        name: "Python ssl",
        command: Some("python3"),
        variables: &["SSL_CERT_FILE"],
        own_file: Some(OverlayKind::System),
        reads_system: true,
        note: "also httpx and the SDKs that use it, by the same variable",
    },
    Runtime {
        name: "Python certifi",
        command: None,
        variables: &["REQUESTS_CA_BUNDLE"],
        own_file: Some(OverlayKind::Python),
        reads_system: false,
        note: "requests, botocore and pip; environments that are made later rely on the variable",
    },
    Runtime {
        name: "Node",
        command: Some("node"),
        variables: &["NODE_EXTRA_CA_CERTS"],
        own_file: None,
        reads_system: false,
        note: "read once, when the process starts",
    },
    Runtime {
        name: "Bun",
        command: Some("bun"),
        variables: &["NODE_EXTRA_CA_CERTS"],
        own_file: None,
        reads_system: false,
        note: "SSL_CERT_FILE is ignored",
    },
    Runtime {
        name: "Deno",
        command: Some("deno"),
        variables: &["DENO_CERT"],
        own_file: None,
        reads_system: false,
        note: "the variable adds to Mozilla's roots",
    },
    Runtime {
        name: "Java",
        command: Some("java"),
        variables: &["JAVA_TOOL_OPTIONS"],
        own_file: Some(OverlayKind::Java),
        reads_system: false,
        note: "where the variable is used, each JVM says so on stderr",
    },
    Runtime {
        name: "git",
        command: Some("git"),
        variables: &["GIT_SSL_CAINFO"],
        own_file: Some(OverlayKind::System),
        reads_system: true,
        note: "http.sslCAInfo in a settings file is respected",
    },
    Runtime {
        name: "Claude Code",
        command: Some("claude"),
        variables: &["NODE_EXTRA_CA_CERTS"],
        own_file: None,
        reads_system: true,
        note: "the native build reads the system's store as well",
    },
    Runtime {
        name: "Codex",
        command: Some("codex"),
        variables: &["CODEX_CA_CERTIFICATE"],
        own_file: Some(OverlayKind::System),
        reads_system: true,
        note: "versions before 0.129 carry their own roots",
    },
    Runtime {
        name: "gRPC",
        command: None,
        variables: &["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"],
        own_file: None,
        reads_system: false,
        note: "the C core, and what is built on it",
    },
    Runtime {
        name: "compiled-in or pinned roots",
        command: None,
        variables: &[],
        own_file: None,
        reads_system: false,
        note: "Rust programs with webpki-roots and programs that pin cannot be told: they pass through, and are counted",
    },
];
