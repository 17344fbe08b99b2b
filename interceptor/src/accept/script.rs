//! What an interpreter runs. As far as trust goes, each script is a program of its own: one that brings
//! its own roots says nothing about the others that the same interpreter runs.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// How the names of interpreters begin: `python3.11`, `node`, `java`.
const INTERPRETERS: [&str; 10] = [
    "python", "pypy", "node", "bun", "deno", "ruby", "perl", "php", "java", "dotnet",
];
/// Said before what is run, by some.
const COMMANDS: [&[u8]; 2] = [b"run", b"exec"];

/// What tells the script of an interpreter from others, without a word of it: options often hold code.
/// None where `program` is no interpreter, or runs nothing that is named.
///
/// `command_line` is that of `/proc/PID/cmdline`, each argument ended by a zero byte; a name of a script
/// that is no absolute path is one of `directory`.
pub(super) fn of(program: &str, command_line: &[u8], directory: &Path) -> Option<u64> {
    if !INTERPRETERS.iter().any(|name| program.starts_with(name)) {
        return None;
    }
    let arguments = command_line.split(|byte| *byte == 0).skip(1);
    let mut named = arguments.filter(|argument| {
        // Options differ from run to run (`-Dtask=17`, `--inspect=9229`).
        !(argument.is_empty() || argument.starts_with(b"-") || COMMANDS.contains(argument))
    });
    let script = named.next()?;
    let mut hasher = DefaultHasher::new();
    script.hash(&mut hasher);
    if !Path::new(OsStr::from_bytes(script)).is_absolute() {
        directory.hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(program: &str, command_line: &str) -> Option<u64> {
        let command_line = command_line.replace(' ', "\0") + "\0";
        of(program, command_line.as_bytes(), Path::new("/home/u"))
    }

    #[test]
    fn each_script_of_an_interpreter_is_a_program_of_its_own_whatever_it_is_told() {
        let first = script("python3.11", "python3 -u agent.py --task 1");
        assert!(first.is_some());
        assert_eq!(first, script("python3.11", "python3 -u agent.py --task 2"));
        assert_eq!(first, script("python3.11", "python3 --task=3 agent.py"));
        for other in ["python3 -u other.py", "python3 -m agent", "python3 -c code"] {
            assert_ne!(script("python3.11", other), first, "{other}");
            assert!(script("python3.11", other).is_some(), "{other}");
        }
        assert_ne!(script("bun", "bun run a.ts"), script("bun", "bun run b.ts"));
        assert_ne!(
            script("java", "java -jar a.jar"),
            script("java", "java -jar b.jar")
        );
    }

    #[test]
    fn a_name_is_one_of_its_directory() {
        let at = |name: &str, directory: &str| {
            let command_line = format!("node\0{name}\0");
            of("node", command_line.as_bytes(), Path::new(directory))
        };
        assert_ne!(at("main.js", "/a"), at("main.js", "/b"));
        assert_eq!(at("/opt/main.js", "/a"), at("/opt/main.js", "/b"));
    }

    #[test]
    fn other_programs_are_told_apart_by_their_files_alone() {
        assert_eq!(script("claude", "claude -p hello"), None);
        assert_eq!(script("python3", "python3"), None);
        assert_eq!(script("python3", ""), None);
    }
}
