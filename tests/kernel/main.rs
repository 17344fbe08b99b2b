//! Tier 3: the eBPF programs in the running kernel. Needs root and `ip`; fails, and does not skip, without them.

#[cfg(test)]
mod redirect;
