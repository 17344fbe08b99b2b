//! Tables of the packet filter that dead processes left, whose lists are gone with their state
//! directory: what [`crate::process::leftovers`] knows of is removed there.

use std::path::Path;
use std::process::Stdio;

use super::packet_filter::{TABLE_PREFIX, nft};

/// Removes the tables of dead processes and returns their names, as far as this user may.
///
/// Left as it is: one whose process is alive, or renews it from where its number is another
/// (containers may share a network), or whose command runs on: it is still to be refused.
#[must_use]
pub fn clean_stale_tables() -> Vec<String> {
    let listed = said(&["list", "tables", "inet"]).unwrap_or_default();
    let tables = listed
        .lines()
        .filter_map(|line| line.strip_prefix("table inet "));
    tables
        .filter(|table| is_dead(table) && said(&["delete", "table", "inet", table]).is_some())
        .map(str::to_owned)
        .collect()
}

fn is_dead(table: &str) -> bool {
    let name = table.strip_prefix(TABLE_PREFIX);
    let Some((pid, time)) = name.and_then(|name| name.split_once('_')) else {
        return false;
    };
    if pid.parse::<u32>().is_err() || time.parse::<u64>().is_err() {
        return false;
    }
    let has_process = Path::new("/proc").join(pid).exists();
    !has_process
        && !has_cgroup(pid)
        && said(&["list", "set", "inet", table, "alive"])
            .is_some_and(|set| !set.contains("elements"))
}

/// Whether a command of this Weir runs: its cgroup would be gone otherwise.
fn has_cgroup(pid: &str) -> bool {
    let Ok(mount) = weir_probes::cgroup2_mount() else {
        return false;
    };
    let Ok(entries) = std::fs::read_dir(mount.join(weir_probes::CGROUP_PARENT)) else {
        return false;
    };
    let of_process = format!("{pid}-");
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(&of_process))
}

/// What `nft` says, where it succeeds.
fn said(arguments: &[&str]) -> Option<String> {
    let ended = nft()
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let ended = ended.ok().filter(|ended| ended.status.success())?;
    String::from_utf8(ended.stdout).ok()
}
