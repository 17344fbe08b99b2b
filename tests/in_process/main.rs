//! The in-process tier: a whole sidecar in this process, between clients and servers of the test.

#[cfg(test)]
mod replay;

#[cfg(test)]
mod alike;
#[cfg(test)]
mod byte_exact;
#[cfg(test)]
mod caps;
#[cfg(test)]
mod caps_cheaper;
#[cfg(test)]
mod caps_streams;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod later;
#[cfg(test)]
mod moved;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod prices;
#[cfg(test)]
mod records;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod evasion;
#[cfg(test)]
mod rewrite;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod thinking;
#[cfg(test)]
mod learned;
#[cfg(test)]
mod one_by_one;
