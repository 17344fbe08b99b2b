//! A machine of a test's own: a network namespace in which the providers' names lead to TEST-NET addresses, simulated
//! providers on its loopback, and `weir run` configured to find them there.
//!
//! Nothing answers at those addresses, and by default nothing routes to them: what is answered came through Weir.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use weir_simulator::{ACCESS_KEY_ID, Api, Billed, Options, SECRET_ACCESS_KEY, Simulator, Usage};

/// A namespace with simulated providers. It is the calling thread's, and that of what the thread starts.
pub(crate) struct World {
    // Stopped before its runtime.
    pub(crate) simulator: Simulator,
    runtime: Runtime,
    directory: tempfile::TempDir,
    overlays: Vec<&'static str>,
}

/// What of the machine differs from test to test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup<'a> {
    /// Lines of the configuration, before those that the world needs.
    pub(crate) config: &'a str,
    /// Where the providers' names lead.
    pub(crate) providers: Providers,
}

/// Where the providers' names lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Providers {
    /// An IPv4 address without a route.
    #[default]
    Nowhere4,
    /// An IPv6 address behind a default route to nobody.
    Nowhere6,
    /// The same address, to which there is no route yet.
    Unreachable6,
    /// An IPv4 address of the namespace itself, for tests that listen there.
    Here,
}

impl World {
    pub(crate) fn new(setup: Setup<'_>) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("the kernel tier needs root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
        ip(match setup.providers {
            Providers::Nowhere4 | Providers::Unreachable6 => "",
            Providers::Nowhere6 => ROUTE6,
            Providers::Here => "addr add 192.0.2.7/32 dev lo",
        });
        let directory = tempfile::tempdir().unwrap();
        // Other users' programs run here too.
        set_mode(directory.path(), 0o755);
        let address = match setup.providers {
            Providers::Nowhere6 | Providers::Unreachable6 => "2001:db8::7",
            Providers::Nowhere4 | Providers::Here => "192.0.2.7",
        };
        // sudo looks the machine up.
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let machine = machine.trim();
        let names = Simulator::HOSTS.join(" ");
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let simulator = {
            let _entered = runtime.enter();
            Simulator::start(Options::default()).unwrap()
        };
        let mut world = Self {
            simulator,
            runtime,
            directory,
            overlays: vec![],
        };
        world.configure(setup.config);
        let hosts = format!("127.0.0.1 localhost {machine}\n{address} {names}\n");
        world.lay_over("/etc/hosts", &hosts, 0o644);
        // Each world has a CA of its own, whose bundles would stay there.
        fs::create_dir_all(PUBLIC).unwrap();
        mount(none, PUBLIC, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        world.overlays.push(PUBLIC);
        world
    }

    fn configure(&self, first: &str) {
        let root = self.path("simulator.pem");
        fs::write(&root, self.simulator.ca_pem()).unwrap();
        let address = self.simulator.addr();
        let hosts = Simulator::HOSTS.iter();
        let resolve: Vec<_> = hosts
            .map(|host| format!("\"{host}\" = \"{address}\""))
            .collect();
        let config = format!(
            "{first}\n[upstream]\nresolve = {{ {} }}\nextra_roots = [{root:?}]\n[admin]\nlisten = \"127.0.0.1:0\"\n",
            resolve.join(", ")
        );
        fs::write(self.path("weir.toml"), config).unwrap();
    }

    /// Shows `content` in place of the file at `path`, to this test alone.
    pub(crate) fn lay_over(&mut self, path: &'static str, content: &str, mode: u32) {
        let file = self.path(path.rsplit_once('/').unwrap().1);
        fs::write(&file, content).unwrap();
        set_mode(&file, mode);
        let none: Option<&str> = None;
        mount(Some(&file), path, none, MsFlags::MS_BIND, none).unwrap();
        self.overlays.push(path);
    }

    /// A path in the test's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `weir COMMAND` with this world's configuration and state directory.
    pub(crate) fn weir(&self, command: &str) -> Command {
        let mut weir = Command::new(WEIR);
        weir.arg(command);
        weir.arg("--config").arg(self.path("weir.toml"));
        weir.arg("--state-dir").arg(self.path("state"));
        // What this machine tells programs to trust is no part of the test.
        let plain = PLAIN
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        weir.env_clear().envs(plain).envs(KEYS).stdin(Stdio::null());
        weir
    }

    /// `weir run -- COMMAND`
    pub(crate) fn run<I: AsRef<OsStr>>(
        &self,
        options: &[&str],
        command: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut weir = self.weir("run");
        weir.args(options).arg("--").args(command);
        weir
    }

    /// Runs `command` to its end, which must come soon.
    pub(crate) fn output(&self, command: Command) -> Output {
        let described = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        command
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Started by this thread, so in its namespaces.
        self.runtime.block_on(async {
            let child = command
                .spawn()
                .unwrap_or_else(|error| panic!("{described}: {error}"));
            let output = tokio::time::timeout(COMMAND_TIMEOUT, child.wait_with_output()).await;
            output
                .unwrap_or_else(|_elapsed| panic!("{described}: not ended in time"))
                .unwrap()
        })
    }

    /// What `command` writes under `weir run`; it must end well.
    pub(crate) fn said<I: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = I>) -> String {
        success(&self.output(self.run(&[], command)))
    }

    /// What Weir recorded, call by call, in the order in which they were made.
    pub(crate) fn records(&self) -> Vec<Recorded> {
        // It is opened, and with it what a killed process left is read, by whoever runs next.
        let database = Connection::open(self.path("state/weir.db")).unwrap();
        let mut rows = database
            .prepare("SELECT * FROM exchange ORDER BY started_ms, id")
            .unwrap();
        let rows = rows.query_map([], |row| {
            let tokens = |name: &str| {
                let tokens: Option<i64> = row.get(name)?;
                Ok::<_, rusqlite::Error>(u64::try_from(tokens.unwrap_or(0)).unwrap())
            };
            let long = tokens("cache_write_long")?;
            let read = tokens("cache_read")?;
            let written = tokens("cache_write")?;
            Ok(Recorded {
                api: row.get("api")?,
                model: row
                    .get::<_, Option<String>>("model_requested")?
                    .unwrap_or_default(),
                program: row.get::<_, Option<String>>("program")?.unwrap_or_default(),
                user: row.get::<_, Option<String>>("user")?.unwrap_or_default(),
                outcome: row.get("outcome")?,
                cost: row.get("cost_state")?,
                nanodollars: u64::try_from(row.get::<_, Option<i64>>("cost_nanos")?.unwrap_or(0))
                    .unwrap(),
                usage: Usage {
                    input_uncached: tokens("input")?,
                    cache_read: read,
                    cache_write_short: written,
                    cache_write_long: long,
                    output: tokens("output")?,
                    reasoning: tokens("reasoning")?,
                },
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The record and the providers' bill agree, to the token and the nano-dollar, and no call was made twice.
    pub(crate) fn books_agree(&self) {
        self.calls_agree();
        let bill = self.simulator.bill();
        assert_eq!(self.simulator.received().len(), bill.len());
    }

    /// The same for a program that asks the providers for more than calls.
    pub(crate) fn calls_agree(&self) {
        let records = self.records();
        let calls = records.iter().filter(|record| !record.api.is_empty());
        let said: Vec<_> = calls.map(Recorded::line).collect();
        let billed: Vec<_> = self.simulator.bill().iter().map(billed_line).collect();
        assert_eq!(said, billed);
    }

    /// `weir report spend --json`, the totals.
    pub(crate) fn spend(&self) -> Value {
        let mut report = self.weir("report");
        report.args(["spend", "--json"]);
        serde_json::from_str(&success(&self.output(report))).unwrap()
    }

    /// Starts `command` and reads the line with which it says that it is ready.
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take();
        let mut running = Running {
            child,
            stdin,
            stdout,
            stderr,
        };
        assert_eq!(running.line(), "ready", "{}", running.complaints());
        running
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The thread may make another world, of what this one leaves.
        for path in &self.overlays {
            umount2(*path, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

/// A call as Weir recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) api: String,
    pub(crate) model: String,
    pub(crate) program: String,
    pub(crate) user: String,
    pub(crate) outcome: String,
    pub(crate) cost: String,
    pub(crate) nanodollars: u64,
    pub(crate) usage: Usage,
}

/// What both books hold of a call.
type Line = (&'static str, String, Usage, u64);

impl Recorded {
    fn line(&self) -> Line {
        let api = APIS.iter().find(|(_, name)| *name == self.api);
        let api = api.unwrap_or_else(|| panic!("{self:?}")).1;
        assert_eq!(
            (self.outcome.as_str(), self.cost.as_str()),
            ("completed", "priced"),
            "{self:?}"
        );
        (api, self.model.clone(), self.usage, self.nanodollars)
    }
}

fn billed_line(billed: &Billed) -> Line {
    let api = APIS.iter().find(|(api, _)| *api == billed.api).unwrap().1;
    (api, billed.model.clone(), billed.usage, billed.nanodollars)
}

/// A running `weir run`, whose command does as its standard input says.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The next line of its output, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// Sends a line, and returns the line that answers it.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.line()
    }

    /// Ends its input, waits, and returns how it ended and what it complained of.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        drop(self.stdin.take());
        let complaints = self.complaints();
        (self.child.wait().unwrap(), complaints)
    }

    fn complaints(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            // The command goes when its standard input ends.
            drop(self.stdin.take());
            let _already_dead = self.child.kill();
            let _already_waited = self.child.wait();
        }
    }
}

/// The standard output of what ended well.
pub(crate) fn success(output: &Output) -> String {
    let [said, complained] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(
        output.status.success(),
        "{}\n{said}\n{complained}",
        output.status
    );
    said
}

/// A program of `package`, which must be installed.
pub(crate) fn installed(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("expected {program}, found none: apt-get install {package}"))
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn ip(more: &str) {
    let mut ip = Command::new(installed("ip", "iproute2"))
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = format!("{ADDRESSES}{more}\n");
    ip.stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(ip.wait().unwrap().success());
}

pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir-under-test");

/// Where Weir puts what the programs of all users read.
const PUBLIC: &str = "/run/weir";

/// What programs need to start.
const PLAIN: [&str; 4] = ["PATH", "HOME", "LANG", "PYENV_VERSION"];

/// What the SDKs take as they are started.
const KEYS: [(&str, &str); 9] = [
    ("ANTHROPIC_API_KEY", "sk-ant-simulated"),
    ("OPENAI_API_KEY", "sk-simulated"),
    ("GEMINI_API_KEY", "simulated"),
    ("MISTRAL_API_KEY", "simulated"),
    ("GROQ_API_KEY", "gsk_simulated"),
    ("CO_API_KEY", "simulated"),
    ("AZURE_OPENAI_API_KEY", "simulated"),
    ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
];

const APIS: [(Api, &str); 10] = [
    (Api::Messages, "messages"),
    (Api::ChatCompletions, "chat_completions"),
    (Api::Responses, "responses"),
    (Api::Embeddings, "embeddings"),
    (Api::Realtime, "realtime"),
    (Api::GenerateContent, "generate_content"),
    (Api::EmbedContent, "embed_content"),
    (Api::CohereChat, "cohere_chat"),
    (Api::InvokeModel, "invoke_model"),
    (Api::Converse, "converse"),
];

/// Resolvers look for an address besides loopback before they look up names.
const ADDRESSES: &str = "\
link set lo up
addr add 192.0.2.1/32 dev lo
addr add 2001:db8::1/128 dev lo nodad
";

const ROUTE6: &str = "\
link add up0 type veth peer name down0
link set up0 up
link set down0 up
route add ::/0 dev up0
";

/// Longer than any program of these tests takes.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);
