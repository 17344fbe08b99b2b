//! Weir dies, or hangs, while a program is in the middle of a stream.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Providers, Running, Setup, World, installed};

/// A program that calls and connects as it is told, and a provider that takes direct connections.
fn start(config: &str) -> (World, Running) {
    let python = installed("python3", "python3");
    let world = World::new(Setup {
        config,
        providers: Providers::Here,
    });
    let listener = TcpListener::bind("192.0.2.7:443").unwrap();
    // It ends with the test's process.
    thread::spawn(move || {
        for accepted in listener.incoming() {
            let _gone = accepted.unwrap().write_all(b"direct\n");
        }
    });
    let script = world.path("program.py");
    fs::write(&script, PROGRAM).unwrap();
    let running = World::start(world.run(&[], [python, script]));
    (world, running)
}

/// Asks for connections until one is not answered with silence, and says what it was and how long it took.
fn until_answered(program: &mut Running, since: Instant) -> (String, Duration) {
    loop {
        let answer = program.ask("connect");
        if answer != "silence" {
            return (answer, since.elapsed());
        }
        assert!(since.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn killed_in_a_stream_weir_lets_the_next_connection_go_direct_and_has_every_call_in_its_books() {
    let (world, mut program) = start("");
    assert_eq!(program.ask("call"), "called");
    assert_eq!(program.ask("call"), "called");
    assert_eq!(program.ask("stream"), "streaming");
    let since = Instant::now();
    program.kill();
    let (answer, after) = until_answered(&mut program, since);
    assert_eq!(answer, "direct");
    assert!(after < Duration::from_secs(1), "{after:?}");
    assert_eq!(until_answered(&mut program, since).0, "direct");
    program.finish();

    world.said(["true"]);
    let (records, bill) = (world.records(), world.simulator.bill());
    assert_eq!((records.len(), bill.len()), (3, 3), "{records:?}");
    for (record, billed) in records.iter().zip(&bill).take(2) {
        assert_eq!(record.outcome, "completed");
        assert_eq!(
            (record.usage, record.nanodollars),
            (billed.usage, billed.nanodollars)
        );
    }
    let lost = &records[2];
    assert_eq!(
        (lost.outcome.as_str(), lost.cost.as_str()),
        ("lost", "estimated"),
        "{lost:?}"
    );
    assert!(lost.nanodollars > 0, "{lost:?}");
}

#[test]
fn what_becomes_of_processes_that_outlive_the_command_is_said() {
    let world = World::new(Setup::default());
    let command = ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; exit 3"];
    let output = world.output(world.run(&[], command));
    let pid = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected =
        "weir: 1 of the command's processes live on: new connections of theirs go direct";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn killed_where_it_must_fail_closed_weir_leaves_connections_refused_at_once() {
    let (world, mut program) = start("[intercept]\nfail = \"closed\"\n");
    assert_eq!(program.ask("stream"), "streaming");
    let since = Instant::now();
    program.kill();
    let (answer, after) = until_answered(&mut program, since);
    assert_eq!(answer, "ECONNREFUSED");
    assert!(after < Duration::from_secs(1), "{after:?}");
    program.finish();
    // Whoever runs next takes down what is left.
    world.said(["true"]);
    assert_eq!(fs::read_dir(world.path("state/run")).unwrap().count(), 0);
}

#[test]
fn stopped_weir_is_gone_around_within_a_second_and_a_bit() {
    for (config, expected) in [
        ("", "direct"),
        ("[intercept]\nfail = \"closed\"\n", "ECONNREFUSED"),
    ] {
        let (_world, mut program) = start(config);
        assert_eq!(program.ask("stream"), "streaming");
        program.signal(Signal::SIGSTOP);
        let since = Instant::now();
        let (answer, after) = until_answered(&mut program, since);
        program.signal(Signal::SIGCONT);
        assert_eq!(answer, expected);
        assert!(after < Duration::from_millis(1500), "{after:?}");
        let (status, complaints) = program.finish();
        assert!(status.success(), "{complaints}");
    }
}

/// `connect` waits for a word of the other side, which Weir, who waits for a ClientHello, has none of.
const PROGRAM: &str = r#"
import errno, http.client, json, socket, sys

def call(extra, text):
    connection = http.client.HTTPSConnection("api.anthropic.com", timeout=30)
    body = {"model": "claude-haiku-5-5", "max_tokens": 500, "messages": [{"role": "user", "content": text}], **extra}
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    connection.request("POST", "/v1/messages", json.dumps(body), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer

def connect():
    try:
        with socket.create_connection(("api.anthropic.com", 443), timeout=0.1) as connection:
            return connection.recv(100).decode().strip() or "closed"
    except TimeoutError:
        return "silence"
    except OSError as error:
        return errno.errorcode[error.errno]

print("ready", flush=True)
kept = []
for line in sys.stdin:
    match line.strip():
        case "call":
            call({}, "How high is the water?").read()
            print("called", flush=True)
        case "stream":
            kept.append(call({"stream": True}, "And now? [[sim: tokens=400 events=400 delay_ms=50]]"))
            kept[-1].readline()
            print("streaming", flush=True)
        case "connect":
            print(connect(), flush=True)
"#;
