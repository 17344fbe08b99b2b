//! The variables that make a program's runtimes trust the CA.
//!
//! Variables that add to the roots of a runtime name the CA alone. Variables that replace them name
//! a bundle: the roots that the runtime would have used without Weir, and the CA. A value
//! that the user set is merged, never overwritten.
//!
//! Not set, on purpose: `SSL_CERT_DIR`, because it takes Go's default directories away;
//! `NODE_TLS_REJECT_UNAUTHORIZED`, because it ends all verification; `NODE_USE_SYSTEM_CA`, because
//! it makes every Node process read a store it did not trust before, while `NODE_EXTRA_CA_CERTS`
//! adds exactly one root in every version.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::python::Origin;
use super::{Files, Surroundings, TrustError, bundle, java, python};

/// Variables to set, beside those that the program has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// By name; a value that was there is replaced by one that holds what it held.
    pub set: BTreeMap<&'static str, OsString>,
    /// For the log: what was left alone or could not be read, and why.
    pub notes: Vec<String>,
}

/// How Java learns of the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JavaDelivery {
    /// Its stores are replaced, see [`super::overlays()`].
    Overlay,
    /// By `JAVA_TOOL_OPTIONS`, at the price that every JVM says so on stderr.
    Option,
}

/// Writes the bundles that a program in `surroundings` needs and names the variables that point
/// there.
///
/// # Errors
/// [`TrustError::Unwritable`] when a bundle cannot be written.
pub fn environment(
    surroundings: &Surroundings,
    files: &Files,
    java: JavaDelivery,
) -> Result<Environment, TrustError> {
    let mut environment = Environment::default();
    for name in ADDITIVE {
        environment.add(surroundings, files, name)?;
    }
    let roots = Roots::gather(surroundings, files)?;
    if roots.system.is_none() {
        environment.notes.push(
            "found no bundle of roots on this system, so the variables that replace a runtime's \
             roots are not set: install the package ca-certificates"
                .to_owned(),
        );
    }
    for variable in &REPLACING {
        environment.replace(surroundings, files, variable, &roots)?;
    }
    if java == JavaDelivery::Option {
        environment.tell_java(surroundings, files)?;
    }
    Ok(environment)
}

impl Environment {
    fn add(
        &mut self,
        surroundings: &Surroundings,
        files: &Files,
        name: &'static str,
    ) -> Result<(), TrustError> {
        let mut file = files.ca().to_owned();
        if let Some(old) = surroundings.path_variable(name) {
            match surroundings.read(&old) {
                Ok(base) => file = put_merged(files, &base)?,
                Err(error) => self.note_unreadable(name, &old, &error),
            }
        }
        self.set.insert(name, file.into());
        Ok(())
    }

    fn replace(
        &mut self,
        surroundings: &Surroundings,
        files: &Files,
        variable: &Replacing,
        roots: &Roots,
    ) -> Result<(), TrustError> {
        let name = variable.name;
        let own = surroundings.variable(name);
        let mut named = Vec::new();
        if own.is_none()
            && let Some(settings) = &variable.settings
            && let Some(file) = settings.with_roots(surroundings)
        {
            if !settings.are_merged {
                let file = file.display();
                self.notes
                    .push(format!("{name} is not set: {file} names roots of its own"));
                return Ok(());
            }
            named = self.roots_named(surroundings, &file, settings.key);
        }
        let chain = [name].into_iter().chain(variable.fallbacks.iter().copied());
        let mut base = None;
        for source in chain {
            let Some(value) = surroundings.variable(source) else {
                continue;
            };
            match read_roots(surroundings, source, value) {
                Ok(found) => {
                    base = Some(found);
                    break;
                }
                Err((path, error)) if source == name => self.note_unreadable(name, &path, &error),
                Err(_reported_under_its_own_name) => {}
            }
        }
        if !named.is_empty() {
            // Sections of such a file differ, and the variable outranks them all.
            let beside = base.as_deref().unwrap_or(&roots.packaged_list);
            base = Some(bundle::union([named.as_slice(), beside]).into_bytes());
        }
        let file = match (base, &variable.reads) {
            (Some(base), _) => Some(put_merged(files, &base)?),
            (None, Reads::System) => roots.system.clone(),
            (None, Reads::Packaged) => roots.packaged.clone(),
        };
        if let Some(file) = file {
            self.set.insert(name, file.into());
        }
        Ok(())
    }

    /// The certificates of the files that the settings in `file` name as `key`.
    fn roots_named(&mut self, surroundings: &Surroundings, file: &Path, key: &str) -> Vec<u8> {
        let text = surroundings.read(file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut read = Vec::new();
        for line in text.lines().filter(|line| names_key(line, key)) {
            let value = line.split_once('=').map_or("", |(_, value)| value.trim());
            let path = surroundings.directory.join(value);
            match surroundings.read(&path) {
                Ok(roots) => read.push(roots),
                Err(error) => self.note_unreadable(key, &path, &error),
            }
        }
        bundle::union(read.iter().map(Vec::as_slice)).into_bytes()
    }

    fn tell_java(&mut self, surroundings: &Surroundings, files: &Files) -> Result<(), TrustError> {
        let mut options = surroundings
            .variable(JAVA_OPTIONS)
            .unwrap_or_default()
            .to_owned();
        if options.to_string_lossy().contains(JAVA_STORE) {
            self.notes.push(format!(
                "{JAVA_OPTIONS} names a trust store already and is left alone: add the CA to it with keytool"
            ));
            return Ok(());
        }
        for store in java::stores(surroundings) {
            let merged = surroundings
                .read(&store)
                .map_err(|error| error.to_string())
                .and_then(|store| java::merged(&store, files.trusted_pem()).map_err(str::to_owned));
            match merged {
                Ok(merged) => {
                    let file = files.put("cacerts", "jks", &merged)?;
                    if !options.is_empty() {
                        options.push(" ");
                    }
                    options.push(JAVA_STORE);
                    options.push(file);
                    self.set.insert(JAVA_OPTIONS, options);
                    return Ok(());
                }
                Err(found) => {
                    let store = store.display();
                    self.notes
                        .push(format!("{store}: expected a store of roots, found {found}"));
                }
            }
        }
        Ok(())
    }

    fn note_unreadable(&mut self, name: &str, path: &Path, error: &std::io::Error) {
        let path = path.display();
        self.notes.push(format!(
            "{name} named {path}, which cannot be read ({error})"
        ));
    }
}

/// Bundles of what runtimes fall back to, with the CA; `None` where there is nothing to fall back to.
struct Roots {
    /// What reads the system's bundle.
    system: Option<PathBuf>,
    /// What reads the bundle of its Python package. People add roots of their own there.
    packaged: Option<PathBuf>,
    /// That list without the CA.
    packaged_list: Vec<u8>,
}

impl Roots {
    fn gather(surroundings: &Surroundings, files: &Files) -> Result<Self, TrustError> {
        let packaged = python::packaged_roots(surroundings).roots;
        let read = |path: &Path| surroundings.read(path).ok();
        // Only the list that the program would have used: another one may be years old and hold
        // roots that were since distrusted.
        let active = packaged
            .iter()
            .find(|roots| roots.origin == Origin::Active && roots.is_certifi())
            .and_then(|roots| read(&roots.path));
        let system = match bundle::system(surroundings) {
            Some(path) => read(&path),
            // An image without a bundle of its own, such as a slim Python image.
            None => packaged
                .iter()
                .find(|roots| roots.origin != Origin::Directory)
                .and_then(|roots| read(&roots.path)),
        };
        // The directories of SSL_CERT_DIR stand beside the default file for OpenSSL and Go, but
        // httpx reads them only where SSL_CERT_FILE is not set.
        let directories = surroundings
            .variable("SSL_CERT_DIR")
            .map(|value| read_directories(surroundings, value))
            .unwrap_or_default();
        let system =
            system.map(|system| bundle::union([system.as_slice(), directories.as_slice()]));
        let packaged_list = match (&active, &system) {
            (Some(active), _) => active.clone(),
            (None, Some(system)) => system.clone().into_bytes(),
            (None, None) => Vec::new(),
        };
        let system = system
            .map(|system| put_merged(files, system.as_bytes()))
            .transpose()?;
        let packaged = active
            .map(|active| put_merged(files, &active))
            .transpose()?;
        Ok(Self {
            packaged: packaged.or_else(|| system.clone()),
            system,
            packaged_list,
        })
    }
}

fn put_merged(files: &Files, base: &[u8]) -> Result<PathBuf, TrustError> {
    let merged = bundle::merged(base, files.trusted_pem());
    files.put("bundle", "pem", merged.as_bytes())
}

/// What a variable names: a file, or, for the Python libraries, a directory.
fn read_roots(
    surroundings: &Surroundings,
    name: &str,
    value: &OsStr,
) -> Result<Vec<u8>, (PathBuf, std::io::Error)> {
    let path = surroundings.directory.join(value);
    if name == "REQUESTS_CA_BUNDLE" && surroundings.is_directory(&path) {
        return Ok(read_directories(surroundings, path.as_os_str()));
    }
    surroundings.read(&path).map_err(|error| (path, error))
}

/// The certificates of the files in a colon-separated list of directories.
fn read_directories(surroundings: &Surroundings, list: &OsStr) -> Vec<u8> {
    let files: Vec<Vec<u8>> = list
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|part| surroundings.directory.join(OsStr::from_bytes(part)))
        .flat_map(|directory| {
            let names = surroundings.list(&directory);
            names
                .into_iter()
                .map(move |name| directory.join(name))
                .collect::<Vec<_>>()
        })
        .take(DIRECTORY_FILES_MAX)
        .filter_map(|path| surroundings.read(&path).ok())
        .collect();
    bundle::union(files.iter().map(Vec::as_slice)).into_bytes()
}

impl Settings {
    /// The file that names roots, which the variable would outrank.
    fn with_roots(&self, surroundings: &Surroundings) -> Option<PathBuf> {
        let home = surroundings.home();
        let elsewhere = self
            .variable
            .and_then(|name| surroundings.path_variable(name));
        let usual = self
            .files
            .iter()
            .filter_map(|file| match file.strip_prefix("~/") {
                Some(below) => home.as_ref().map(|home| home.join(below)),
                None => Some(PathBuf::from(file)),
            });
        let files: Vec<PathBuf> = match elsewhere {
            Some(file) => vec![file],
            None => usual.collect(),
        };
        files.into_iter().find(|path| {
            let text = surroundings.read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            text.lines().any(|line| names_key(line, self.key))
        })
    }
}

fn names_key(line: &str, key: &str) -> bool {
    let name = line.split('=').next().unwrap_or_default().trim();
    // Cargo takes `http.cainfo = …` as well.
    let name = name.rsplit('.').next().unwrap_or_default();
    line.contains('=') && name.eq_ignore_ascii_case(key)
}

struct Replacing {
    name: &'static str,
    /// What the runtime reads where the variable is not set, most important first.
    fallbacks: &'static [&'static str],
    /// What it reads where none of them is set.
    reads: Reads,
    settings: Option<Settings>,
}

enum Reads {
    System,
    Packaged,
}

/// Where a tool names roots beside the variable.
struct Settings {
    files: &'static [&'static str],
    /// Names another file instead of these.
    variable: Option<&'static str>,
    key: &'static str,
    /// Whether these roots are merged, since the tool calls language models. One that does not need
    /// not trust the CA: better left alone.
    are_merged: bool,
}

const ADDITIVE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

const REPLACING: [Replacing; 11] = [
    // OpenSSL, Go, httpx (the SDKs of Anthropic and OpenAI), rustls-native-certs, .NET, Ruby.
    Replacing {
        name: "SSL_CERT_FILE",
        fallbacks: &[],
        reads: Reads::System,
        settings: None,
    },
    Replacing {
        name: "REQUESTS_CA_BUNDLE",
        fallbacks: &["CURL_CA_BUNDLE"],
        reads: Reads::Packaged,
        settings: None,
    },
    Replacing {
        name: "CURL_CA_BUNDLE",
        fallbacks: &["SSL_CERT_FILE"],
        reads: Reads::System,
        settings: None,
    },
    Replacing {
        name: "GIT_SSL_CAINFO",
        fallbacks: &[],
        reads: Reads::System,
        settings: Some(Settings {
            files: &["~/.gitconfig", "~/.config/git/config", "/etc/gitconfig"],
            key: "sslCAInfo",
            variable: None,
            are_merged: false,
        }),
    },
    Replacing {
        name: "AWS_CA_BUNDLE",
        fallbacks: &["REQUESTS_CA_BUNDLE"],
        reads: Reads::Packaged,
        settings: Some(Settings {
            files: &["~/.aws/config"],
            key: "ca_bundle",
            variable: Some("AWS_CONFIG_FILE"),
            are_merged: true,
        }),
    },
    Replacing {
        name: "PIP_CERT",
        fallbacks: &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"],
        reads: Reads::Packaged,
        settings: Some(Settings {
            files: &["~/.config/pip/pip.conf", "~/.pip/pip.conf", "/etc/pip.conf"],
            key: "cert",
            variable: None,
            are_merged: false,
        }),
    },
    Replacing {
        name: "HTTPLIB2_CA_CERTS",
        fallbacks: &[],
        reads: Reads::Packaged,
        settings: None,
    },
    Replacing {
        name: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        fallbacks: &[],
        reads: Reads::System,
        settings: None,
    },
    Replacing {
        name: "CODEX_CA_CERTIFICATE",
        fallbacks: &["SSL_CERT_FILE"],
        reads: Reads::System,
        settings: None,
    },
    Replacing {
        name: "CARGO_HTTP_CAINFO",
        fallbacks: &["SSL_CERT_FILE"],
        reads: Reads::System,
        settings: Some(Settings {
            files: &["~/.cargo/config.toml", "~/.cargo/config"],
            key: "cainfo",
            variable: None,
            are_merged: false,
        }),
    },
    Replacing {
        name: "WEBSOCKET_CLIENT_CA_BUNDLE",
        fallbacks: &["SSL_CERT_FILE"],
        reads: Reads::System,
        settings: None,
    },
];

const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
const JAVA_STORE: &str = "-Djavax.net.ssl.trustStore=";
/// A directory of hashed links has some hundred.
const DIRECTORY_FILES_MAX: usize = 4096;
