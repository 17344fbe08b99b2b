//! What is done again and again while the sidecar serves.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::process::limits;
use crate::process::prices::Stamp;

/// Tells the kernel that Weir is alive, from the runtime that serves connections: if that hangs,
/// or has all the connections that it may have, the kernel lets new ones go direct.
pub(super) async fn beat(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(limits::HEARTBEAT_INTERVAL);
    let mut is_well = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.draining() => return,
        }
        if context.connections.available_permits() == 0 {
            continue;
        }
        match context.capture.heartbeat() {
            Ok(()) => is_well = true,
            Err(error) if is_well => {
                tracing::error!(%error, "connections are not captured any more");
                is_well = false;
            }
            Err(_said_before) => {}
        }
    }
}

/// Closes what is idle, gives up what has waited for too long, and puts in force what changed.
pub(super) async fn keep(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    let mut config = Arc::clone(&context.rules().config);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.draining() => return,
        }
        let rules = context.rules();
        rules.forwarder.close_idle(limits::POOL_IDLE_TIMEOUT);
        context.pending.give_up_old(&context);
        context.behind.settle();
        let live = context.live.config();
        // One that was refused is not tried again.
        let changed = (!Arc::ptr_eq(&config, &live)).then(|| Arc::clone(&live));
        config = live;
        if changed.is_none() && config.caps.is_empty() && config.breakers.is_empty() {
            continue;
        }
        let at_work = Arc::clone(&context);
        let is_new = changed.is_some();
        let done = tokio::task::spawn_blocking(move || match changed {
            Some(config) => at_work.follow(config),
            None => Ok(at_work.count_others().map(drop)?),
        });
        match done.await {
            Ok(followed) if is_new => {
                let followed = followed.map_err(|error| format!("{error:#}"));
                context.live.note_followed(followed);
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "caps stay as they were"),
            Err(error) => tracing::error!(%error, "keeping house ended"),
        }
    }
}

/// Puts price lists in force when one is imported or removed, and keeps what was learned.
pub(super) async fn follow_prices(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(limits::CONFIG_POLL_INTERVAL);
    let mut seen: Option<Stamp> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.draining() => return,
        }
        let at_work = Arc::clone(&context);
        let before = seen.clone();
        let read = tokio::task::spawn_blocking(move || {
            let now = at_work.price_files.stamp();
            if before.as_ref().is_some_and(|before| *before != now) {
                let table = at_work.price_files.table(&at_work.rules().config);
                at_work.prices.store(Arc::new(table));
                tracing::info!("price lists replaced");
            }
            at_work.keep_learned(false);
            now
        });
        match read.await {
            Ok(now) => seen = Some(now),
            Err(error) => tracing::error!(%error, "following price lists ended"),
        }
    }
}

/// How often idle connections are closed and the spend of other processes is read.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);
