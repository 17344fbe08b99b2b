//! Weir as a process that is killed: the built command in proxy mode, which needs nothing of the kernel.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;
use weir::process::state::StateDirectory;
use weir_certs::Authority;
use weir_core::catalog::Catalog;
use weir_tests::{Client, ask_for_tunnel, handshake, soon};

/// A running `weir run`, with its state directory and its configuration.
pub(crate) struct Process {
    directory: TempDir,
    weir: Child,
    proxy: SocketAddr,
}

impl Process {
    /// Starts one that rewrites, and trusts the provider of `ca_pem`.
    pub(crate) fn start(ca_pem: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("root.pem");
        std::fs::write(&root, ca_pem).unwrap();
        let config = format!(
            "[cache]\nmode = \"rewrite\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nextra_roots = [{root:?}]\n"
        );
        std::fs::write(directory.path().join("weir.toml"), config).unwrap();
        let (weir, proxy) = run(directory.path());
        Self {
            directory,
            weir,
            proxy,
        }
    }

    /// Kills it, so that it can write nothing down any more, and starts another one.
    pub(crate) fn kill_and_start_again(&mut self) {
        self.weir.kill().unwrap();
        self.weir.wait().unwrap();
        (self.weir, self.proxy) = run(self.directory.path());
    }

    /// A connection of the application to `host` at `provider`.
    pub(crate) async fn connect(&self, provider: SocketAddr, host: &'static str) -> Client {
        let state = StateDirectory::open(Some(&self.directory.path().join("state"))).unwrap();
        let hosts = Catalog::builtin().permitted_subtrees();
        let authority = Authority::open_or_create(&state.authority(), &hosts).unwrap();
        let stream = soon("a connection", TcpStream::connect(self.proxy)).await;
        let tunnel = ask_for_tunnel(stream.unwrap(), provider).await;
        let stream = handshake(tunnel, host, &[b"http/1.1"], &authority.certificate_pem()).await;
        Client::on(stream.unwrap(), host).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.weir.kill());
        drop(self.weir.wait());
    }
}

/// Weir with a command that tells of its proxy, and ends when it is read from no more.
fn run(directory: &Path) -> (Child, SocketAddr) {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir-under-test"))
        .args(["run", "--mode", "proxy", "--config"])
        .arg(directory.join("weir.toml"))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .args(["--", "sh", "-c", "echo \"$HTTPS_PROXY\"; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut proxy = String::new();
    let mut said = BufReader::new(weir.stdout.take().unwrap());
    said.read_line(&mut proxy).unwrap();
    let proxy = proxy.trim().trim_start_matches("http://");
    let proxy = proxy.trim_end_matches('/').parse();
    (weir, proxy.expect("expected the address of a proxy"))
}
