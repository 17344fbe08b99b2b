//! As whom the command runs, and with which environment: as the user who typed the command line,
//! also when that was `sudo weir run …`.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

/// Variables by name.
pub(super) type Variables = BTreeMap<OsString, OsString>;

/// The user who runs the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invoker {
    /// Whom to become; `None`: the command runs as Weir does.
    pub(super) identity: Option<Identity>,
    /// The environment, before Weir's own variables.
    pub(super) environment: Variables,
    /// For the log: what was not as expected.
    pub(super) note: Option<String>,
}

/// A user to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// User id.
    pub(super) uid: Uid,
    /// Primary group.
    pub(super) gid: Gid,
    /// All groups.
    pub(super) groups: Vec<Gid>,
    /// Name, home and shell, where the user database has them.
    pub(super) account: Option<Account>,
}

/// What the user database says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    name: OsString,
    home: PathBuf,
    shell: PathBuf,
}

impl Invoker {
    /// The one who started this process.
    #[must_use]
    pub(super) fn of_this_process() -> Self {
        let environment: Variables = std::env::vars_os().collect();
        if !nix::unistd::geteuid().is_root() {
            return Self {
                identity: None,
                environment,
                note: None,
            };
        }
        find(environment, Path::new("/proc"), std::process::id())
    }

    /// User id that the command runs as.
    #[must_use]
    pub(super) fn uid(&self) -> Uid {
        self.identity
            .as_ref()
            .map_or_else(nix::unistd::geteuid, |identity| identity.uid)
    }
}

/// The name of the user who typed the command line, also where that was with `sudo`; the number where
/// there is no name.
pub(crate) fn invoking_user() -> String {
    let uid = Invoker::of_this_process().uid();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// `environment` is that of process `pid`, which runs as root.
fn find(environment: Variables, proc: &Path, pid: u32) -> Invoker {
    let id =
        |name: &str| -> Option<u32> { environment.get(OsStr::new(name))?.to_str()?.parse().ok() };
    // Where root used sudo, root it stays.
    let Some(uid) = id("SUDO_UID").filter(|uid| *uid != 0).map(Uid::from_raw) else {
        return Invoker {
            identity: None,
            environment,
            note: None,
        };
    };
    let user = User::from_uid(uid).ok().flatten();
    let gid = id("SUDO_GID").map(Gid::from_raw);
    let gid = gid.or_else(|| user.as_ref().map(|user| user.gid));
    let Some(gid) = gid else {
        let note = format!("expected a group for user {uid} in SUDO_GID, found none");
        return Invoker {
            identity: None,
            environment,
            note: Some(note),
        };
    };
    let groups = user.as_ref().and_then(|user| {
        let name = CString::new(user.name.as_bytes()).ok()?;
        nix::unistd::getgrouplist(&name, gid).ok()
    });
    let account = user.map(|user| Account {
        name: user.name.into(),
        home: user.dir,
        shell: user.shell,
    });
    let identity = Identity {
        uid,
        gid,
        groups: groups.unwrap_or_else(|| vec![gid]),
        account,
    };
    let (environment, note) = match environment_of_sudo(proc, pid) {
        Some(users) => (merge(users, environment), None),
        None => {
            let note = "the environment of sudo cannot be read: the command gets root's, with the \
                        user's HOME, USER, LOGNAME and SHELL";
            (
                adapt(environment, identity.account.as_ref()),
                Some(note.to_owned()),
            )
        }
    };
    Invoker {
        identity: Some(identity),
        environment,
        note,
    }
}

/// The environment that the nearest `sudo` above `pid` was started with: the user's own.
fn environment_of_sudo(proc: &Path, pid: u32) -> Option<Variables> {
    let mut pid = pid;
    for _ in 0..ANCESTORS_MAX {
        let directory = proc.join(pid.to_string());
        let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        if before.split_once('(')?.1 == "sudo" {
            let text = std::fs::read(directory.join("environ")).ok()?;
            return Some(parse_environment(&text)).filter(|variables| !variables.is_empty());
        }
        pid = after.split_ascii_whitespace().nth(1)?.parse().ok()?;
    }
    None
}

fn parse_environment(text: &[u8]) -> Variables {
    let entries = text.split(|byte| *byte == 0);
    entries
        .filter_map(|entry| {
            let equals = entry
                .iter()
                .position(|byte| *byte == b'=')
                .filter(|at| *at > 0)?;
            let (name, value) = entry.split_at_checked(equals)?;
            let value = value.get(1..)?;
            Some((
                OsString::from_vec(name.to_vec()),
                OsString::from_vec(value.to_vec()),
            ))
        })
        .collect()
}

/// The user's variables, and those that were added on the way to here: by `sudo NAME=value`, or by
/// a script that sudo runs.
fn merge(users: Variables, own: Variables) -> Variables {
    let mut merged = own;
    merged.retain(|name, _| !is_set_by_sudo(name));
    merged.extend(users);
    merged
}

fn adapt(own: Variables, account: Option<&Account>) -> Variables {
    let mut adapted = own;
    adapted.retain(|name, _| !name.as_bytes().starts_with(b"SUDO_"));
    if let Some(account) = account {
        let values: [(&str, &OsStr); 4] = [
            ("HOME", account.home.as_os_str()),
            ("USER", &account.name),
            ("LOGNAME", &account.name),
            ("SHELL", account.shell.as_os_str()),
        ];
        adapted.extend(values.map(|(name, value)| (name.into(), value.to_owned())));
    }
    adapted
}

/// Of the target user, not of the one who typed the command line.
fn is_set_by_sudo(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let of_root: [&[u8]; 7] = [
        b"HOME",
        b"LOGNAME",
        b"USER",
        b"USERNAME",
        b"MAIL",
        b"SHELL",
        b"XAUTHORITY",
    ];
    name.starts_with(b"SUDO_") || of_root.contains(&name)
}

/// No one types a command line through more processes than this.
const ANCESTORS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str) -> Variables {
        parse_environment(text.replace(' ', "\0").as_bytes())
    }

    /// A /proc of three processes: sudo (10) → sh (11) → weir (12).
    fn proc(sudo: &str, environ: Option<&str>) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, parent) in [(10, sudo, 1), (11, "a) (b", 10), (12, "weir", 11)] {
            let directory = proc.path().join(pid.to_string());
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(
                directory.join("stat"),
                format!("{pid} ({name}) S {parent} 1 1"),
            )
            .unwrap();
            if let Some(environ) = environ {
                std::fs::write(directory.join("environ"), environ.replace(' ', "\0")).unwrap();
            }
        }
        proc
    }

    const SUDO: &str = "SUDO_UID=12345 SUDO_GID=54321 SUDO_USER=x HOME=/root PATH=/sbin EXTRA=1";

    #[test]
    fn through_sudo_the_command_runs_as_the_user_with_the_users_environment() {
        let proc = proc("sudo", Some("HOME=/home/x PATH=/home/x/bin EMPTY= LANG=C"));
        let invoker = find(variables(SUDO), proc.path(), 12);
        let identity = invoker.identity.unwrap();
        assert_eq!(
            (identity.uid, identity.gid),
            (Uid::from_raw(12345), Gid::from_raw(54321))
        );
        assert_eq!(identity.groups, [Gid::from_raw(54321)]);
        let expected = variables("HOME=/home/x PATH=/home/x/bin EMPTY= LANG=C EXTRA=1");
        assert_eq!(invoker.environment, expected);
        assert_eq!(invoker.note, None);
    }

    #[test]
    fn where_the_users_environment_cannot_be_read_it_is_said() {
        for proc in [proc("sudo", None), proc("su", Some("A=1"))] {
            let invoker = find(variables(SUDO), proc.path(), 12);
            assert!(invoker.note.unwrap().contains("cannot be read"));
            let expected = variables("HOME=/root PATH=/sbin EXTRA=1");
            assert_eq!(invoker.environment, expected, "user 12345 has no account");
        }
    }

    #[test]
    fn the_account_gives_what_the_environment_does_not() {
        let account = Account {
            name: "x".into(),
            home: "/home/x".into(),
            shell: "/bin/zsh".into(),
        };
        let adapted = adapt(variables(SUDO), Some(&account));
        let expected = "HOME=/home/x USER=x LOGNAME=x SHELL=/bin/zsh PATH=/sbin EXTRA=1";
        assert_eq!(adapted, variables(expected));
    }

    #[test]
    fn root_stays_root() {
        for text in [
            "HOME=/root",
            "HOME=/root SUDO_UID=0 SUDO_GID=0",
            "SUDO_UID=x",
            "SUDO_UID=",
        ] {
            let invoker = find(variables(text), Path::new("/nonexistent"), 1);
            assert_eq!(invoker.identity, None, "{text}");
            assert_eq!(invoker.environment, variables(text));
        }
    }

    #[test]
    fn a_user_with_an_account_gets_all_groups_of_it() {
        let environment = variables("SUDO_UID=1");
        let invoker = find(environment, Path::new("/nonexistent"), 1);
        let identity = invoker.identity.unwrap();
        assert!(identity.account.is_some(), "user 1 is daemon everywhere");
        assert!(identity.groups.contains(&identity.gid));
    }
}
