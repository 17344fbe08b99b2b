//! Tier 2: a whole sidecar in this process, between clients and servers of the test. Needs nothing.

#[cfg(test)]
mod replay;

#[cfg(test)]
mod byte_exact;
