//! Agents as they come from their packages: a task with tools under `weir run`, every call of it read and priced, and
//! the result on disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::{Value, json};

use crate::world::{Setup, World, installed, success};

/// Where the agents are installed, once. To be asked for before the test has a network of its own.
fn installation() -> &'static Path {
    static INSTALLATION: OnceLock<PathBuf> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/agents/install");
        let installed = Command::new(script).arg(&directory).output().unwrap();
        success(&installed);
        directory.join("node_modules")
    })
}

/// Runs an agent, the `program` of its package, on a task of three `steps`, each one call of a tool: they list the
/// directory, write [`NOTE`] into `gauge.txt` and its checksum into `sum.txt`. How many calls of models it made.
fn does_its_task(
    world: &World,
    program: &Path,
    options: &[&str],
    key: (&str, &str),
    steps: &[Value; 3],
) -> usize {
    let work = work(world);
    fs::create_dir_all(&work).unwrap();
    let task = format!("Measure the water. [[play: {}]]", json!(steps));
    let mut command = vec![installed("node", "nodejs").into_os_string(), program.into()];
    command.extend(options.iter().map(Into::into));
    command.extend(["--".into(), task.into()]);
    let mut weir = world.run(&[], command);
    weir.current_dir(&work)
        .env("HOME", world.path("home"))
        .env(key.0, key.1);
    let output = world.output(weir);
    let said = success(&output);
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();

    let note = fs::read_to_string(work.join("gauge.txt"));
    assert_eq!(note.unwrap(), NOTE, "{said}\n{summary}");
    let sum = fs::read_to_string(work.join("sum.txt"));
    assert_eq!(sum.unwrap(), SUM, "{said}\n{summary}");
    // What it says of what did not work.
    assert!(!summary.contains("ERROR"), "{summary}");
    assert!(!summary.contains("not inspected"), "{summary}");
    world.calls_agree();
    let records = world.records();
    // None failed, whatever it was for.
    let failed: Vec<_> = records
        .iter()
        .filter(|record| record.outcome != "completed")
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let calls: Vec<_> = records
        .iter()
        .filter(|record| !record.api.is_empty())
        .collect();
    let said = format!("weir: {} LLM calls, $", calls.len());
    assert!(summary.contains(&said), "{summary}");
    assert!(
        calls.iter().skip(1).all(|call| call.usage.cache_read > 0),
        "{calls:?}"
    );
    // The history that it sent stands as the models' signatures saw it: else the simulator would have refused it.
    assert!(world.simulator.bill().iter().all(|line| line.status == 200));
    calls.len()
}

fn work(world: &World) -> PathBuf {
    world.path("home/work")
}

#[test]
fn claude_code_does_a_task_with_tools_and_every_call_is_read() {
    let program = installation().join("@anthropic-ai/claude-code/cli-wrapper.cjs");
    let world = World::new(Setup::default());
    let note = work(&world).join("gauge.txt");
    let calls = does_its_task(
        &world,
        &program,
        &[
            "-p",
            "--model",
            "claude-sonnet-5-5",
            "--allowedTools",
            "Bash,Write",
        ],
        ("ANTHROPIC_API_KEY", "sk-ant-simulated"),
        &[
            json!({ "tool": "Bash", "input": { "command": "ls -a", "description": "Lists the files" } }),
            json!({ "tool": "Write", "input": { "file_path": note, "content": NOTE } }),
            json!({ "tool": "Bash", "input": { "command": CHECKSUM, "description": "Sums it up" } }),
        ],
    );
    // One for each step, and one for the last word.
    assert_eq!(calls, 4);
}

#[test]
fn codex_does_a_task_with_tools_and_every_call_is_read() {
    let program = installation().join("@openai/codex/bin/codex.js");
    let world = World::new(Setup::default());
    let calls = does_its_task(
        &world,
        &program,
        &[
            "exec",
            "--model",
            "gpt-5.5",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
        ],
        ("CODEX_API_KEY", "sk-simulated"),
        &[
            json!({ "tool": "exec_command", "input": { "cmd": "ls -a" } }),
            json!({ "tool": "apply_patch", "input": format!("*** Begin Patch\n*** Add File: gauge.txt\n+{NOTE}*** End Patch\n") }),
            json!({ "tool": "exec_command", "input": { "cmd": CHECKSUM } }),
        ],
    );
    // All on one WebSocket; the first only warms the prompt's cache.
    assert_eq!(calls, 5);
    let received = world.simulator.received();
    let in_socket = received.iter().filter(|request| request.method == "WS");
    assert_eq!(in_socket.count(), 5);
}

const NOTE: &str = "two metres\n";

const CHECKSUM: &str = "cksum gauge.txt > sum.txt";

const SUM: &str = "3336059736 11 gauge.txt\n";
