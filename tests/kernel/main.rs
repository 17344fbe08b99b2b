//! The kernel tier: the eBPF programs in the running kernel, and real programs under `weir run`. Needs root and the packages that
//! the README lists; fails, and does not skip, without them.

#[cfg(test)]
mod redirect;

#[cfg(test)]
mod agents;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod life;
#[cfg(test)]
mod modes;
#[cfg(test)]
mod prices;
#[cfg(test)]
mod sdks;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sudo;
#[cfg(test)]
mod world;
