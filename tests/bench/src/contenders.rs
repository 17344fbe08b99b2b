//! The five ways from the client to the server, each started as it would run.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::job::{Answer, Job, Order, Outcome};
use crate::process::{self, Process};
use crate::tls::Identity;
use crate::traffic::{API_HOST, OTHER_HOST};

/// A way from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// Nothing between them.
    Direct,
    /// The bare TLS relay.
    Floor,
    /// The relay that reads HTTP with hyper, and nothing more.
    Hyper,
    /// The bare TLS relay, which computes for a while before it passes on what it read.
    Busy,
    /// The crate hudsucker, parsing JSON.
    Hudsucker,
    /// Weir, redirecting in the kernel.
    Weir,
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::Direct,
        Self::Floor,
        Self::Hyper,
        Self::Busy,
        Self::Hudsucker,
        Self::Weir,
    ];
    /// Those that are measured where none is named.
    pub(crate) const USUAL: [Self; 5] = [
        Self::Direct,
        Self::Floor,
        Self::Hyper,
        Self::Hudsucker,
        Self::Weir,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Hyper => "hyper",
            Self::Busy => "busy",
            Self::Hudsucker => "hudsucker",
            Self::Weir => "weir",
        }
    }

    /// Whether it can carry HTTP/2 as it is set up here.
    pub(crate) fn speaks_http2(self) -> bool {
        !matches!(self, Self::Hyper | Self::Hudsucker)
    }
}

/// What the contenders share: the server, and where files go.
pub(crate) struct Ground {
    dir: PathBuf,
    weir: PathBuf,
    bench: PathBuf,
    _server: Process,
    address: SocketAddr,
    server_ca: PathBuf,
    started: std::cell::Cell<u32>,
}

impl Ground {
    /// Starts the server; `weir` is the binary to measure.
    pub(crate) fn prepare(dir: &Path, weir: &Path) -> anyhow::Result<Self> {
        let bench = std::env::current_exe()?;
        let (identity, server_ca) = Identity::create(dir, "server")?;
        let mut arguments = vec![OsString::from("server")];
        arguments.extend(identity.arguments());
        let server = Process::start(dir, "server", bench.as_os_str(), &arguments)?;
        let address = server.hear(START_WAIT)?;
        Ok(Self {
            dir: dir.to_owned(),
            weir: weir.to_owned(),
            bench,
            _server: server,
            address,
            server_ca,
            started: std::cell::Cell::new(0),
        })
    }

    /// Starts what stands between client and server, and the client.
    pub(crate) fn start(&self, way: Way) -> anyhow::Result<Contender> {
        self.started.set(self.started.get() + 1);
        let name = format!("{}-{}", way.name(), self.started.get());
        match way {
            Way::Direct => {
                let client = self.client(&name, self.address, [&self.server_ca; 2], None)?;
                Contender::new(way, None, client)
            }
            Way::Floor | Way::Hyper | Way::Busy => {
                let (relay, address, ca) = self.proxy(&name, way, |arguments| {
                    arguments.push("--upstream".into());
                    arguments.push(self.address.to_string().into());
                })?;
                let client = self.client(&name, address, [&ca; 2], None)?;
                Contender::new(way, Some(relay), client)
            }
            Way::Hudsucker => {
                let (proxy, address, ca) = self.proxy(&name, way, |_| {})?;
                let trust = [&ca, &self.server_ca];
                let client = self.client(&name, self.address, trust, Some(address))?;
                Contender::new(way, Some(proxy), client)
            }
            Way::Weir => {
                let state_dir = self.dir.join(format!("{name}-state"));
                let weir = self.weir(&name, &state_dir)?;
                Contender::new(way, None, weir).map(|contender| Contender {
                    ledger: Some((self.weir.clone(), state_dir)),
                    ..contender
                })
            }
        }
    }

    fn proxy(
        &self,
        name: &str,
        way: Way,
        more: impl FnOnce(&mut Vec<OsString>),
    ) -> anyhow::Result<(Process, SocketAddr, PathBuf)> {
        let (identity, ca) = Identity::create(&self.dir, name)?;
        let mut arguments = vec![OsString::from(way.name())];
        arguments.extend(identity.arguments());
        arguments.extend(["--upstream-ca".into(), self.server_ca.clone().into()]);
        more(&mut arguments);
        let process = Process::start(&self.dir, name, self.bench.as_os_str(), &arguments)?;
        let address = process.hear(START_WAIT)?;
        Ok((process, address, ca))
    }

    /// A client that goes `to` there, and trusts the one CA for the LLM host, the other for others.
    fn client(
        &self,
        name: &str,
        to: SocketAddr,
        [ca, other_ca]: [&PathBuf; 2],
        proxy: Option<SocketAddr>,
    ) -> anyhow::Result<Process> {
        let mut arguments = client_arguments(to, other_ca);
        arguments.extend(["--ca".into(), ca.into()]);
        if let Some(proxy) = proxy {
            arguments.extend(["--proxy".into(), proxy.to_string().into()]);
        }
        let name = format!("client-{name}");
        Process::start(&self.dir, &name, self.bench.as_os_str(), &arguments)
    }

    /// The client as a program that Weir runs. Its address is of TEST-NET-1 (RFC 5737): whatever
    /// gets an answer from there was redirected. It trusts no CA but Weir's for the LLM host.
    fn weir(&self, name: &str, state_dir: &Path) -> anyhow::Result<Process> {
        let config = self.dir.join(format!("{name}.toml"));
        std::fs::write(&config, self.configuration())?;
        let mut arguments: Vec<OsString> = vec!["run".into(), "--mode".into(), "ebpf".into()];
        arguments.extend(["--state-dir".into(), state_dir.into()]);
        arguments.extend(["--config".into(), config.into(), "--".into()]);
        arguments.push(self.bench.clone().into());
        let to = SocketAddr::from(([192, 0, 2, 1], 443));
        arguments.extend(client_arguments(to, &self.server_ca));
        Process::start(&self.dir, name, self.weir.as_os_str(), &arguments)
    }

    /// Everything that costs something is on: reading, pricing, a cap, the record.
    fn configuration(&self) -> String {
        let (server, ca) = (self.address, self.server_ca.display());
        format!(
            r#"[upstream]
resolve = {{ "{API_HOST}" = "{server}", "{OTHER_HOST}" = "{server}" }}
extra_roots = ["{ca}"]

[cache]
mode = "observe"

[[cap]]
name = "each user, each day"
per = ["user"]
window = "day"
limit_usd = 1000000.00
on_exceed = "block"

[admin]
listen = "127.0.0.1:0"
"#
        )
    }
}

fn client_arguments(to: SocketAddr, other_ca: &Path) -> Vec<OsString> {
    let to = to.to_string().into();
    let client = "client".into();
    vec![
        client,
        "--to".into(),
        to,
        "--other-ca".into(),
        other_ca.into(),
    ]
}

/// A way that is set up: its client waits for orders.
pub(crate) struct Contender {
    pub(crate) way: Way,
    /// Ended first: it is the one that holds connections.
    client: Process,
    interceptor: Option<Process>,
    /// The interceptor's processes, for CPU time and memory.
    pids: Vec<i32>,
    /// Calls that were answered.
    calls: u64,
    /// The binary and the state directory of Weir.
    ledger: Option<(PathBuf, PathBuf)>,
}

impl Contender {
    fn new(way: Way, interceptor: Option<Process>, client: Process) -> anyhow::Result<Self> {
        let Answer::Started { pid } = client.hear(START_WAIT)? else {
            anyhow::bail!("{}: expected the client to say that it started", way.name());
        };
        let pids = match way {
            Way::Direct => vec![],
            Way::Floor | Way::Hyper | Way::Busy | Way::Hudsucker => {
                interceptor.iter().map(Process::pid).collect()
            }
            Way::Weir => process::family(client.pid(), pid)?,
        };
        Ok(Self {
            way,
            client,
            interceptor,
            pids,
            calls: 0,
            ledger: None,
        })
    }

    /// Does `job`; also returns the CPU time (ns) that the interceptor used meanwhile.
    pub(crate) fn perform(&mut self, job: Job) -> anyhow::Result<(Outcome, Option<u64>)> {
        self.prepare(job)?;
        let before = process::cpu_ns(&self.pids)?;
        let outcome = self.go()?;
        let used = process::cpu_ns(&self.pids)? - before;
        Ok((outcome, (self.way != Way::Direct).then_some(used)))
    }

    /// Gets the client ready for `job`.
    pub(crate) fn prepare(&mut self, job: Job) -> anyhow::Result<()> {
        self.client.tell(&Order::Prepare(job))?;
        match self.client.hear(JOB_WAIT)? {
            Answer::Ready => Ok(()),
            other => anyhow::bail!("{}: expected to be ready, found {other:?}", self.way.name()),
        }
    }

    /// Lets the client do what it is prepared for.
    pub(crate) fn go(&mut self) -> anyhow::Result<Outcome> {
        self.client.tell(&Order::Go)?;
        match self.client.hear(JOB_WAIT)? {
            Answer::Done(outcome) => {
                self.calls += outcome.api_calls;
                Ok(*outcome)
            }
            other => anyhow::bail!("{}: expected an outcome, found {other:?}", self.way.name()),
        }
    }

    /// Ends its processes. Weir's ledger must then hold every call, with a price: otherwise what
    /// was measured is not what Weir is for.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        drop((self.client, self.interceptor));
        let Some((weir, state_dir)) = self.ledger else {
            return Ok(());
        };
        let report = Command::new(weir)
            .args(["report", "spend", "--json", "--state-dir"])
            .arg(state_dir)
            .output()?;
        let text = String::from_utf8_lossy(&report.stdout);
        let total = || {
            Some(
                serde_json::from_str::<Value>(&text)
                    .ok()?
                    .get("total")?
                    .clone(),
            )
        };
        let total = total().with_context(|| {
            let errors = String::from_utf8_lossy(&report.stderr);
            format!("expected a report of what was spent, found: {text}{errors}")
        })?;
        let count = |name| total.get(name).and_then(Value::as_u64);
        let (calls, unpriced) = (count("calls"), count("unpriced_calls"));
        anyhow::ensure!(
            calls >= Some(self.calls) && unpriced == Some(0),
            "expected the ledger to hold {} calls with a price, found {calls:?}, {unpriced:?} unpriced",
            self.calls
        );
        Ok(())
    }

    /// Resident memory of the interceptor, KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        process::resident_kib(&self.pids).with_context(|| self.way.name())
    }
}

/// How long a process may take to start.
const START_WAIT: Duration = Duration::from_secs(20);
/// How long a job may take: longer than a call may, so that the client is the one to give up.
const JOB_WAIT: Duration = Duration::from_secs(45);
