//! Whatever either side does, the other sees what it would have seen without Weir, and it is counted.

mod calls;
mod connections;
mod trust;

use weir::process::config::{Config, Fail};

const HOST: &str = "api.anthropic.com";

fn closed() -> Config {
    let mut config = Config::default();
    config.intercept.fail = Fail::Closed;
    config
}
