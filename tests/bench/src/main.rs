//! Measures what Weir adds to a call, interleaved with a direct run, relays that do less, and hudsucker.
//!
//! Read in this order: `job` is what one measurement is, `client` makes it, `server` answers it,
//! `relay` and `hudsucker` stand between them as Weir does, `contenders` starts them all, `measure` lets them take
//! turns, `report` compares.

mod job;
mod traffic;

mod client;
mod hudsucker;
mod relay;
mod server;

mod cells;
mod contenders;
mod measure;
mod process;
mod report;

mod clock;
mod tls;

use clap::{Parser, Subcommand};

/// What Weir adds to a call, beside a bare TLS relay and hudsucker.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: measure::Options,
}

/// Without a subcommand everything is started, measured and stopped. The subcommands are the
/// processes that this takes; they serve until their standard input is closed.
#[derive(Subcommand)]
enum Role {
    /// The simulated provider.
    Server(server::Options),
    /// The bare TLS relay.
    Floor(relay::Options),
    /// The relay that reads HTTP with hyper.
    Hyper(relay::Options),
    /// The bare TLS relay that computes.
    Busy(relay::Options),
    /// The hudsucker proxy.
    Hudsucker(hudsucker::Options),
    /// The client, told what to do on standard input.
    Client(client::Options),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        None => measure::run(&arguments.options),
        Some(Role::Server(options)) => server::run(&options),
        Some(Role::Floor(options)) => relay::run(&options, relay::Way::Floor),
        Some(Role::Hyper(options)) => relay::run(&options, relay::Way::Hyper),
        Some(Role::Busy(options)) => relay::run(&options, relay::Way::Busy),
        Some(Role::Hudsucker(options)) => hudsucker::run(&options),
        Some(Role::Client(options)) => client::run(&options),
    }
}
