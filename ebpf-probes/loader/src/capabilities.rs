//! Whether the calling thread may load and attach the programs.

use std::fs;

use crate::LoadError;

/// Loading and attaching needs exactly `CAP_BPF` and `CAP_NET_ADMIN`. `CAP_SYS_ADMIN` stands in for the first. Asked
/// beforehand, because the kernel answers all of them with the same EPERM.
pub(crate) fn check() -> Result<(), LoadError> {
    // Without /proc the kernel will have to tell.
    match fs::read_to_string("/proc/thread-self/status") {
        Ok(status) => check_status(&status),
        Err(_) => Ok(()),
    }
}

fn check_status(status: &str) -> Result<(), LoadError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let Some(effective) = effective else {
        return Ok(());
    };
    let has = |capability: u32| effective & (1 << capability) != 0;
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        return Err(LoadError::MissingCapability {
            capability: "CAP_BPF",
        });
    }
    if !has(CAP_NET_ADMIN) {
        return Err(LoadError::MissingCapability {
            capability: "CAP_NET_ADMIN",
        });
    }
    Ok(())
}

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_capabilities_are_needed_and_the_missing_one_is_named() {
        for (effective, missing) in [
            ("000001ffffffffff", None),
            ("0000008000001000", None),
            ("0000000000201000", None),
            ("0000000000001000", Some("CAP_BPF")),
            ("0000008000000000", Some("CAP_NET_ADMIN")),
            ("0000000000000000", Some("CAP_BPF")),
        ] {
            let status = format!("Name:\tweir\nCapEff:\t{effective}\nCapBnd:\t0\n");
            let found = match check_status(&status) {
                Err(LoadError::MissingCapability { capability }) => Some(capability),
                other => other.map(|()| None).unwrap(),
            };
            assert_eq!(found, missing, "{effective}");
        }
    }

    #[test]
    fn a_status_that_says_nothing_leaves_it_to_the_kernel() {
        assert!(check_status("Name:\tweir\n").is_ok());
        assert!(check_status("CapEff:\tnonsense\n").is_ok());
    }
}
