//! A PostgreSQL server of the test's own: from the system's package, in a scratch directory, behind
//! a socket there, as a user that is not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const WAIT: Duration = Duration::from_secs(60);
/// Of the socket: nobody listens to a port.
const PORT: u16 = 5432;
const POOL_PORT: u16 = 6432;

/// Ends with the test, and its directory with it.
pub(crate) struct Server {
    process: Child,
    pooler: Option<Child>,
    directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = TempDir::with_prefix("weir-postgres").unwrap();
        Self::start_in(directory, PORT, &["listen_addresses=".to_owned()])
    }

    /// Lets in only who knows the password `s3cret-pass`, over TLS to a port of loopback.
    pub(crate) fn start_encrypted(port: u16, certificate: &str, key: &str) -> Self {
        let directory = TempDir::with_prefix("weir-postgres").unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [("cert.pem", certificate), ("key.pem", key)] {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
            give(&at(name));
        }
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(at("rules"), rules).unwrap();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", at("cert.pem").display()),
            format!("ssl_key_file={}", at("key.pem").display()),
            format!("hba_file={}", at("rules").display()),
        ];
        let server = Self::start_in(directory, port, &settings);
        let changed = Command::new(binary("psql"))
            .arg("-h")
            .arg(server.directory.path())
            .args(["-p", &port.to_string(), "-U", "weir", "-d", "postgres"])
            .args(["-qc", "ALTER USER weir PASSWORD 's3cret-pass'"])
            .status()
            .unwrap();
        assert!(changed.success());
        server
    }

    fn start_in(directory: TempDir, port: u16, settings: &[String]) -> Self {
        let data = directory.path().join("data");
        give(directory.path());
        let made = as_nobody(&binary("initdb"))
            .args(["--auth=trust", "--username=weir", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let settings = settings.iter().flat_map(|setting| ["-c", setting.as_str()]);
        let process = as_nobody(&binary("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory.path())
            .args(["-c", "fsync=off"])
            .args(settings)
            .stderr(log(&directory.path().join("log")))
            .spawn()
            .unwrap();
        let server = Self {
            process,
            pooler: None,
            directory,
        };
        server.wait(port);
        server
    }

    /// Starts a pool in transaction mode in front of it; its URL.
    pub(crate) fn pool(&mut self) -> String {
        let directory = self.directory.path();
        let at = directory.display();
        let configuration = format!(
            "[databases]\npostgres = host={at} user=weir pool_size=3\n[pgbouncer]\n\
             listen_port = {POOL_PORT}\nunix_socket_dir = {at}\npool_mode = transaction\n\
             auth_type = any\n"
        );
        let file = directory.join("pgbouncer.ini");
        fs::write(&file, configuration).unwrap();
        let pooler = as_nobody(Path::new("/usr/sbin/pgbouncer"))
            .arg(&file)
            .stderr(log(&directory.join("pool-log")))
            .spawn()
            .expect("pgbouncer of the system's package");
        self.pooler = Some(pooler);
        self.wait(POOL_PORT);
        self.url_at(POOL_PORT)
    }

    pub(crate) fn url(&self) -> String {
        self.url_at(PORT)
    }

    fn url_at(&self, port: u16) -> String {
        let directory = self.directory.path().display().to_string();
        format!(
            "postgres://weir@{}:{port}/postgres",
            directory.replace('/', "%2F")
        )
    }

    /// A connection of the test's own, beside those of Weir.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The only value of the only row.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.client()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0)
    }

    /// Stops every process of the server, as a machine that hangs would.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let postmaster = pid(&self.process);
        // First the one that makes the others.
        kill(postmaster, signal).unwrap();
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        for child in fs::read_to_string(children).unwrap().split_whitespace() {
            // One that has just ended is no matter.
            kill(Pid::from_raw(child.parse().unwrap()), signal).unwrap_or_default();
        }
    }

    /// Until somebody is let in behind the socket of a port.
    fn wait(&self, port: u16) {
        let until = Instant::now() + WAIT;
        loop {
            let answered = Command::new(binary("psql"))
                .arg("-h")
                .arg(self.directory.path())
                .args([
                    "-p",
                    &port.to_string(),
                    "-U",
                    "weir",
                    "-d",
                    "postgres",
                    "-c",
                    "SELECT 1",
                ])
                .output()
                .unwrap();
            if answered.status.success() {
                return;
            }
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap();
            let said = String::from_utf8_lossy(&answered.stderr).into_owned();
            assert!(
                Instant::now() < until,
                "no server within {WAIT:?}: {said}{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thaw();
        if let Some(pooler) = &mut self.pooler {
            drop(pooler.kill());
            drop(pooler.wait());
        }
        // At once: nobody wants these files.
        kill(pid(&self.process), Signal::SIGQUIT).unwrap_or_default();
        drop(self.process.wait());
    }
}

fn pid(process: &Child) -> Pid {
    Pid::from_raw(i32::try_from(process.id()).unwrap())
}

/// A program of the newest server that is installed.
fn binary(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL of the system's package in /usr/lib/postgresql");
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("expected {name} in /usr/lib/postgresql/*/bin"))
}

/// PostgreSQL refuses to run as root.
fn nobody() -> Option<(u32, u32)> {
    let user = || User::from_name("postgres").ok().flatten();
    geteuid().is_root().then(|| {
        user().map_or((65_534, 65_534), |user| {
            (user.uid.as_raw(), user.gid.as_raw())
        })
    })
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = nobody() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

fn give(path: &Path) {
    if let Some((uid, gid)) = nobody() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn log(path: &Path) -> Stdio {
    Stdio::from(fs::File::create(path).unwrap())
}
