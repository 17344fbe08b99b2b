//! Where the Python installations that a program may use keep their own roots.
//!
//! Python libraries carry a copy of Mozilla's list each (certifi, pip, botocore). Nothing names
//! the installations of a machine, so this looks where the tools that make them put them: a bounded
//! list of places, a few hundred `stat` calls. What it misses is reached by variables only.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Surroundings;

/// A file of roots that some Python package brought along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackagedRoots {
    /// Resolved.
    pub(super) path: PathBuf,
    pub(super) origin: Origin,
}

impl PackagedRoots {
    /// Whether this is what `requests` and `httpx` read, and not a copy for pip or another package.
    pub(super) fn is_certifi(&self) -> bool {
        self.path.ends_with("certifi/cacert.pem") && !self.path.ends_with(PIP_ROOTS)
    }
}

/// Why an installation was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The environment and the command lead there: it is the one that the program will use.
    Active,
    /// It is on the machine.
    Installed,
    /// It is in the directory that the program starts in. What someone downloaded must not become
    /// a root for programs outside of it.
    Directory,
}

/// What a search came to.
pub(super) struct Search {
    /// Every file of roots that was found, each once.
    pub(super) roots: Vec<PackagedRoots>,
    /// Whether there was more than the limits allow.
    pub(super) is_cut: bool,
}

/// Looks for the roots that Python packages brought along.
pub(super) fn packaged_roots(surroundings: &Surroundings) -> Search {
    let mut active = Vec::new();
    chosen_prefixes(surroundings, &mut active);
    commanded_prefixes(surroundings, &mut active);
    let local = [".venv", "venv"].map(|name| surroundings.directory.join(name));
    let mut installed = Vec::new();
    installed_prefixes(surroundings, &mut installed);
    let prefixes = distinct(
        surroundings,
        [
            (Origin::Active, active),
            (Origin::Directory, local.to_vec()),
            (Origin::Installed, installed),
        ],
    );

    let mut roots: Vec<PackagedRoots> = Vec::new();
    let mut is_cut = prefixes.len() > PREFIXES_MAX;
    for (origin, prefix) in prefixes.iter().take(PREFIXES_MAX) {
        for path in roots_below(surroundings, prefix) {
            if roots.iter().any(|other| other.path == path) {
                continue;
            }
            if roots.len() == FILES_MAX {
                is_cut = true;
                break;
            }
            roots.push(PackagedRoots {
                path,
                origin: *origin,
            });
        }
    }
    Search { roots, is_cut }
}

/// Environments that variables point to.
fn chosen_prefixes(surroundings: &Surroundings, prefixes: &mut Vec<PathBuf>) {
    let variables = [
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONHOME",
        "PYTHONUSERBASE",
    ];
    prefixes.extend(
        variables
            .into_iter()
            .filter_map(|name| surroundings.path_variable(name)),
    );
}

/// Environments of the command itself, and of the interpreters that `PATH` leads to.
fn commanded_prefixes(surroundings: &Surroundings, prefixes: &mut Vec<PathBuf>) {
    let program = surroundings.program.as_deref();
    if let Some(command) = program.and_then(|name| surroundings.command(name)) {
        add_both(surroundings, &command, prefixes);
        if let Some(interpreter) = interpreter(surroundings, &command) {
            add_both(surroundings, &interpreter, prefixes);
        }
    }
    for directory in surroundings.search_path() {
        if directory.file_name() == Some(OsStr::new("shims")) {
            // pyenv's shims are scripts; the interpreters are beside them.
            let versions = directory.with_file_name("versions");
            prefixes.extend(children(surroundings, &versions));
        }
        let names = ["python", "python3"].map(str::to_owned);
        let minor_versions = PYTHON_MINORS.map(|minor| format!("python3.{minor}"));
        for name in names.into_iter().chain(minor_versions) {
            add_both(surroundings, &directory.join(name), prefixes);
        }
    }
}

/// Environments where the tools that make them put them.
fn installed_prefixes(surroundings: &Surroundings, prefixes: &mut Vec<PathBuf>) {
    let home = surroundings.home();
    let below_home = |places: &[&str]| -> Vec<PathBuf> {
        let home = home.iter();
        home.flat_map(|home| places.iter().map(|place| home.join(place)))
            .collect()
    };
    let parents = [
        ("PYENV_ROOT", "versions"),
        ("PIPX_HOME", "venvs"),
        ("UV_TOOL_DIR", ""),
        ("UV_PYTHON_INSTALL_DIR", ""),
        ("WORKON_HOME", ""),
    ];
    let named = parents
        .into_iter()
        .filter_map(|(name, below)| Some(surroundings.path_variable(name)?.join(below)));
    for parent in named.chain(below_home(&ENVIRONMENT_PARENTS)) {
        prefixes.extend(children(surroundings, &parent));
    }
    prefixes.extend(below_home(&[".local"]));
    prefixes.extend(SYSTEM_PREFIXES.map(PathBuf::from));
    let mut condas = below_home(&CONDA_DIRECTORIES);
    condas.extend(SYSTEM_CONDAS.map(PathBuf::from));
    // CONDA_EXE is `<conda>/bin/conda`.
    let executable = surroundings.path_variable("CONDA_EXE");
    condas.extend(executable.iter().filter_map(|path| prefix_of(path)));
    for conda in condas {
        prefixes.extend(children(surroundings, &conda.join("envs")));
        prefixes.push(conda);
    }
}

fn distinct(
    surroundings: &Surroundings,
    groups: [(Origin, Vec<PathBuf>); 3],
) -> Vec<(Origin, PathBuf)> {
    let mut seen = BTreeSet::new();
    groups
        .iter()
        .flat_map(|(origin, prefixes)| prefixes.iter().map(|prefix| (*origin, prefix)))
        .filter_map(|(origin, prefix)| Some((origin, surroundings.resolve(prefix)?)))
        .filter(|(_, real)| seen.insert(real.clone()))
        .collect()
}

fn roots_below(surroundings: &Surroundings, prefix: &Path) -> Vec<PathBuf> {
    let mut candidates = vec![prefix.join("ssl/cacert.pem")]; // conda's OpenSSL
    for library in ["lib", "lib64"] {
        let library = prefix.join(library);
        for name in surroundings.list(&library) {
            if !name.to_string_lossy().starts_with("python") {
                continue;
            }
            for packages in ["site-packages", "dist-packages"] {
                let packages = library.join(&name).join(packages);
                if surroundings.is_directory(&packages) {
                    candidates.extend(ROOTS_IN_PACKAGES.map(|roots| packages.join(roots)));
                }
            }
        }
    }
    candidates
        .into_iter()
        .filter_map(|path| surroundings.resolve(&path))
        .filter(|path| surroundings.outside(path).is_file())
        .collect()
}

/// The prefix by the path as written and by the path with its links followed: the interpreter of
/// a virtual environment is a link out of it, the command of a tool is a link into one.
fn add_both(surroundings: &Surroundings, command: &Path, prefixes: &mut Vec<PathBuf>) {
    if let Some(real) = surroundings.resolve(command) {
        prefixes.extend(prefix_of(command));
        prefixes.extend(prefix_of(&real));
    }
}

/// `/x` of `/x/bin/python`.
fn prefix_of(command: &Path) -> Option<PathBuf> {
    let directory = command.parent()?;
    (directory.file_name()? == "bin").then(|| directory.parent().map(Path::to_owned))?
}

/// What the first line of a script names.
fn interpreter(surroundings: &Surroundings, script: &Path) -> Option<PathBuf> {
    let bytes = surroundings.read_start(script, SHEBANG_BYTES_MAX).ok()?;
    let line = bytes
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    let name = line.split_ascii_whitespace().next()?;
    name.starts_with('/').then(|| PathBuf::from(name))
}

fn children(surroundings: &Surroundings, parent: &Path) -> Vec<PathBuf> {
    let names: Vec<OsString> = surroundings.list(parent);
    names.into_iter().map(|name| parent.join(name)).collect()
}

/// Beside each other in the directory of packages: certifi, the copies that pip, botocore, grpcio
/// and httplib2 bring along.
const ROOTS_IN_PACKAGES: [&str; 5] = [
    "certifi/cacert.pem",
    PIP_ROOTS,
    "botocore/cacert.pem",
    "grpc/_cython/_credentials/roots.pem",
    "httplib2/cacerts.txt",
];

const PIP_ROOTS: &str = "pip/_vendor/certifi/cacert.pem";

/// Below the home directory: each holds environments or installations.
const ENVIRONMENT_PARENTS: [&str; 7] = [
    ".pyenv/versions",
    ".local/share/pipx/venvs",
    ".local/pipx/venvs",
    ".local/share/uv/tools",
    ".local/share/uv/python",
    ".cache/pypoetry/virtualenvs",
    ".virtualenvs",
];
const CONDA_DIRECTORIES: [&str; 4] = ["miniconda3", "anaconda3", "miniforge3", "mambaforge"];
const SYSTEM_CONDAS: [&str; 2] = ["/opt/conda", "/opt/miniconda3"];
const SYSTEM_PREFIXES: [&str; 4] = ["/usr", "/usr/local", "/opt/venv", "/venv"];
const PYTHON_MINORS: [u8; 9] = [8, 9, 10, 11, 12, 13, 14, 15, 16];
/// More environments than anyone has been seen to keep; the first are those most likely used.
const PREFIXES_MAX: usize = 512;
pub(super) const FILES_MAX: usize = 256;
/// The kernel reads no more of the first line (`BINPRM_BUF_SIZE`).
const SHEBANG_BYTES_MAX: u64 = 256;
