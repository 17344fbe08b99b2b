//! `weir run` from the outside: codes, streams, terminal and signals as if Weir were not there.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A place of its own for each test.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        hide_public_files();
        let directory = tempfile::tempdir().unwrap();
        let config = "[admin]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(directory.path().join("weir.toml"), config).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn weir(&self, command: &[&str]) -> Command {
        let mut weir = with_default_signals(env!("CARGO_BIN_EXE_weir"));
        weir.args(["run", "--config"]).arg(self.path("weir.toml"));
        weir.arg("--state-dir")
            .arg(self.path("state"))
            .arg("--")
            .args(command);
        weir.env_remove("SUDO_UID")
            .env_remove("WEIR_LOG")
            .stdin(Stdio::null());
        weir
    }

    fn output(&self, command: &[&str]) -> Output {
        self.weir(command).output().unwrap()
    }

    fn log(&self) -> String {
        let entries = std::fs::read_dir(self.path("state/logs"))
            .unwrap()
            .flatten();
        entries
            .map(|entry| std::fs::read_to_string(entry.path()).unwrap())
            .collect()
    }

    /// What is left of ended processes.
    fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("state/run")).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let world = World::new();
    for (command, code, signal) in [
        (&["true"][..], Some(0), None),
        (&["sh", "-c", "exit 7"], Some(7), None),
        (&["sh", "-c", "exit 255"], Some(255), None),
        (&["weir-has-no-such-program"], Some(127), None),
        (&["/nonexistent/program"], Some(127), None),
        (&["/etc/passwd"], Some(126), None),
        (&["/"], Some(126), None),
        (&["sh", "-c", "kill -TERM $$"], None, Some(Signal::SIGTERM)),
        (&["sh", "-c", "kill -INT $$"], None, Some(Signal::SIGINT)),
        (&["sh", "-c", "kill -PIPE $$"], None, Some(Signal::SIGPIPE)),
        (&["sh", "-c", "kill -KILL $$"], None, Some(Signal::SIGKILL)),
        (&["sh", "-c", "kill -SEGV $$"], None, Some(Signal::SIGSEGV)),
    ] {
        let status = world.output(command).status;
        assert_eq!(status.code(), code, "{command:?}");
        assert_eq!(
            status.signal(),
            signal.map(|signal| signal as i32),
            "{command:?}"
        );
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let below = entries.flat_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.path()],
    });
    below.collect()
}

#[test]
fn arguments_of_the_command_are_not_kept() {
    let world = World::new();
    let canary = "sk-canary-0123456789abcdef";
    for command in [
        &["true", "--api-key", canary][..],
        &["weir-has-no-such-program", canary],
    ] {
        world.output(command);
    }
    assert!(world.log().contains("arguments=2"), "{}", world.log());
    for file in files(&world.path("state")) {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes
            .windows(canary.len())
            .any(|window| window == canary.as_bytes());
        assert!(!found, "{}", file.display());
    }
}

#[test]
fn a_clean_run_leaves_no_journal_behind() {
    let world = World::new();
    for _ in 0..2 {
        assert!(world.output(&["true"]).status.success());
        let journals = std::fs::read_dir(world.path("state/journal")).unwrap();
        let names: Vec<_> = journals.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["opening"]);
    }
    assert!(!world.log().contains("took over"), "{}", world.log());
}

#[test]
fn what_cannot_be_set_up_is_said_and_the_command_does_not_run() {
    let world = World::new();
    let ran = world.path("ran");
    let touch = ["touch", ran.to_str().unwrap()];
    std::fs::write(world.path("weir.toml"), "[intercept]\nprots = [443]\n").unwrap();
    let output = world.output(&touch);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("weir.toml:2:1: unknown field `prots`"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    let usage = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--nonsense"])
        .output();
    assert_eq!(usage.unwrap().status.code(), Some(2));

    std::fs::write(world.path("weir.toml"), "").unwrap();
    std::fs::write(world.path("state"), "in the way").unwrap();
    let output = world.output(&touch);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("expected a state directory that can be written"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!ran.exists());
}

#[test]
fn bytes_pass_through_both_ways_and_weirs_words_come_last_on_stderr() {
    let world = World::new();
    let bytes: Vec<u8> = (0..1_000_000_u32)
        .map(|number| number.to_le_bytes()[1] ^ 0x5a)
        .collect();
    let mut child = world
        .weir(&["sh", "-c", "cat; echo words >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(
        output.stdout == bytes,
        "{} bytes came of {}",
        output.stdout.len(),
        bytes.len()
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("words\nweir: no LLM call\n"), "{said}");
}

#[test]
fn the_command_has_the_environment_it_would_have_and_can_read_the_ca() {
    let world = World::new();
    let mut weir = world.weir(&["sh", "-c", r#"echo "$KEPT $0"; cat "$NODE_EXTRA_CA_CERTS""#]);
    let output = weir.env("KEPT", "as it was").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("as it was sh\n-----BEGIN CERTIFICATE-----\n"),
        "{text}"
    );
}

#[test]
fn the_command_keeps_the_limit_of_open_files() {
    let world = World::new();
    let line = world.path("weir.toml");
    let mut limited = Command::new("sh");
    let script =
        r#"ulimit -S -n 777; exec "$0" run --config "$1" --state-dir "$2" -- sh -c "ulimit -n""#;
    limited
        .args(["-c", script, env!("CARGO_BIN_EXE_weir")])
        .arg(line)
        .arg(world.path("state"));
    let output = limited.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "777\n");
}

/// Where root puts what all users read: each of these worlds has a CA, whose bundles would stay
/// there. Other users put them into the state directory.
fn hide_public_files() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let (none, public): (Option<&str>, _) = (None, "/run/weir");
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::fs::create_dir_all(public).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
    mount(none, public, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

/// A program that no signal is ignored in, whatever is in this process: what was started by `nohup`
/// or in the background of a script ignores some, and a shell can trap none of those.
fn with_default_signals(program: &str) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(program);
    command
}

/// A command that says when it is ready.
fn ready(mut weir: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = weir
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, stdout)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Waits without a process of its own in between, so that traps run at once.
const WAIT: &str = "echo ready; read line < \"$FIFO\"";

fn waiting(world: &World, traps: &str) -> Command {
    let fifo = world.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut weir = world.weir(&["sh", "-c", &format!("{traps}; {WAIT}")]);
    weir.env("FIFO", fifo);
    weir
}

#[test]
fn what_is_sent_to_weir_reaches_the_command() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        let world = World::new();
        let name = signal.as_str().trim_start_matches("SIG");
        let traps = format!("trap 'echo {name}; exit 9' {name}");
        let (mut child, mut stdout) = ready(waiting(&world, &traps));
        kill(pid(&child), signal).unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("{name}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }
}

#[test]
fn a_hangup_makes_weir_read_its_configuration_again() {
    let world = World::new();
    let traps = "trap 'exit 9' TERM; trap 'echo again' HUP; while :; do echo ready; read line < \"$FIFO\"; done";
    let (mut child, mut stdout) = ready(waiting(&world, traps));
    std::fs::write(world.path("weir.toml"), "[cache]\nmode = \"off\"\n").unwrap();
    kill(pid(&child), Signal::SIGHUP).unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "again\n");
    // It is read before the signal is passed on.
    assert!(
        world.log().contains("configuration replaced"),
        "{}",
        world.log()
    );
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

/// A terminal, and a program that it controls.
struct Terminal {
    master: File,
    child: Child,
    /// Read, but behind what was expected so far.
    said: String,
}

impl Terminal {
    fn start(script: &str, world: &World) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let slave = |file: &OwnedFd| Stdio::from(file.try_clone().unwrap());
        let child = with_default_signals("setsid")
            .args(["--ctty", "--wait", "bash", "-c", script])
            .env("WEIR", env!("CARGO_BIN_EXE_weir"))
            .env("WEIR_CONFIG", world.path("weir.toml"))
            .env("WEIR_STATE_DIR", world.path("state"))
            .env_remove("SUDO_UID")
            .stdin(slave(&pty.slave))
            .stdout(slave(&pty.slave))
            .stderr(slave(&pty.slave))
            .spawn()
            .unwrap();
        Self {
            master: File::from(pty.master),
            child,
            said: String::new(),
        }
    }

    /// Reads up to `text`, and fails where the terminal closes before. Returns what came before it.
    fn expect(&mut self, text: &str) -> String {
        let mut buffer = [0; 1024];
        loop {
            if let Some((before, after)) = self.said.split_once(text) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.said = after;
                return before;
            }
            let count = self.master.read(&mut buffer).unwrap_or(0);
            assert_ne!(count, 0, "expected {text:?}, found {:?}", self.said);
            self.said
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn the_command_has_the_terminal() {
    let world = World::new();
    let script = r#"exec "$WEIR" run sh -c 'test -t 0 && test -t 1 && test -t 2 && stty size && read x && echo "got $x"'"#;
    let mut terminal = Terminal::start(script, &world);
    terminal.expect("0 0");
    terminal.type_keys("hello\n");
    terminal.expect("got hello");
    terminal.expect("weir: no LLM call");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn ctrl_c_and_ctrl_backslash_reach_the_command_once_and_do_not_end_weir_first() {
    for (key, signal) in [("\u{3}", "INT"), ("\u{1c}", "QUIT")] {
        let world = World::new();
        let script = format!(
            r#"exec "$WEIR" run sh -c 'trap "echo caught; count=x\$count" {signal}; echo ready; until read line; do :; done; echo "<$count>"; exit 3'"#
        );
        let mut terminal = Terminal::start(&script, &world);
        terminal.expect("ready");
        terminal.type_keys(key);
        terminal.expect("caught");
        terminal.type_keys("\n");
        terminal.expect("<x>");
        terminal.expect("weir: no LLM call");
        assert_eq!(terminal.code(), Some(3), "{signal}");
    }
}

#[test]
fn a_shell_sees_that_ctrl_c_ended_the_command() {
    let world = World::new();
    let script = r#""$WEIR" run sh -c 'echo ready; read line'; echo "the script goes on""#;
    let mut terminal = Terminal::start(script, &world);
    terminal.expect("ready");
    terminal.type_keys("\u{3}");
    let rest = terminal.expect("weir: no LLM call");
    assert!(!rest.contains("goes on"), "{rest}");
    assert_ne!(terminal.code(), Some(0));
}

#[test]
fn ctrl_z_stops_both_and_fg_continues_both() {
    let world = World::new();
    let script = r#"set -m; "$WEIR" run sh -c 'echo ready; read x; echo "got $x"; exit 5'; echo "stopped $?"; fg; echo "ended $?""#;
    let mut terminal = Terminal::start(script, &world);
    terminal.expect("ready");
    terminal.type_keys("\u{1a}");
    terminal.expect("stopped 147");
    terminal.type_keys("hello\n");
    terminal.expect("got hello");
    terminal.expect("ended 5");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn status_shows_the_running_process_and_forgets_the_ended_one() {
    let world = World::new();
    let status = |world: &World| {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["status", "--json", "--state-dir"])
            .arg(world.path("state"));
        let output = weir.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        value["processes"].as_array().unwrap().clone()
    };
    let (mut child, _stdout) = ready(waiting(&world, "trap 'exit 9' TERM"));
    let running = status(&world);
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!(running[0]["pid"], child.id());
    assert_eq!(running[0]["ready"], true, "{running:?}");
    assert_eq!(running[0]["fail"], "open");
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(status(&world), Vec::<serde_json::Value>::new());
}

#[test]
fn a_killed_weir_leaves_the_command_alone_and_the_next_one_cleans_up() {
    let world = World::new();
    let (mut child, mut stdout) = ready(waiting(
        &world,
        "trap 'echo alive' USR1; echo $$ > \"$FIFO.pid\"",
    ));
    let command = read_pid(&world.path("fifo.pid"));
    kill(pid(&child), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    assert!(!world.leftovers().is_empty());
    // With its command alive, it is left as it is; without a cgroup there is nothing to tell by.
    assert!(world.output(&["true"]).status.success());
    kill(command, Signal::SIGUSR1).unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "alive\n");
    kill(command, Signal::SIGKILL).unwrap();
    stdout.read_to_string(&mut line).unwrap();
    await_end(command);
    assert!(world.output(&["true"]).status.success());
    assert_eq!(world.leftovers(), Vec::<String>::new(), "{}", world.log());
}

fn read_pid(path: &Path) -> Pid {
    Pid::from_raw(
        std::fs::read_to_string(path)
            .unwrap()
            .trim()
            .parse()
            .unwrap(),
    )
}

/// It is no child of ours, so there is no waiting but by looking.
fn await_end(process: Pid) {
    let stat = format!("/proc/{process}/stat");
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
}
