//! Idle upstream connections, kept per route for the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::http1::Http1;
use super::{Connected, Http2, Protocol, Route};

/// Routes that are remembered; the one that idled longest makes room.
const ROUTES_MAX: usize = 1024;
/// Idle connections kept per route, of each protocol.
const IDLE_MAX: usize = 64;

/// Idle connections by route.
#[derive(Default)]
pub(super) struct Pool {
    routes: Mutex<HashMap<Route, Idle>>,
}

struct Idle {
    protocol: Protocol,
    http1: Vec<(Instant, Box<Http1>)>,
    http2: Vec<(Instant, Http2)>,
    used: Instant,
}

impl Pool {
    /// The protocol of `route`, if a connection to it is ready now. One of HTTP/2 is taken out, one
    /// of HTTP/1.1 stays until a request takes it.
    pub(super) fn ready(&self, route: &Route) -> Option<(Protocol, Option<Http2>)> {
        let mut routes = self.lock();
        let idle = routes.get_mut(route)?;
        while let Some((_, sender)) = idle.http2.pop() {
            if !sender.is_closed() {
                return Some((idle.protocol, Some(sender)));
            }
        }
        // The newest is the one that is taken next; asking the others too would cost each new
        // client a system call for each of them.
        while let Some((_, newest)) = idle.http1.last_mut() {
            if newest.is_ready() {
                return Some((idle.protocol, None));
            }
            idle.http1.pop();
        }
        None
    }

    /// A connection on which a request can be sent now.
    pub(super) fn take_http1(&self, route: &Route) -> Option<Box<Http1>> {
        let mut routes = self.lock();
        let idle = routes.get_mut(route)?;
        idle.used = Instant::now();
        while let Some((_, mut http1)) = idle.http1.pop() {
            if http1.is_ready() {
                return Some(http1);
            }
        }
        None
    }

    pub(super) fn put(&self, route: &Route, protocol: Protocol, connected: Connected) {
        let now = Instant::now();
        let mut routes = self.lock();
        if routes.len() >= ROUTES_MAX && !routes.contains_key(route) {
            let oldest = routes
                .iter()
                .min_by_key(|(_, idle)| idle.used)
                .map(|(key, _)| key.clone());
            oldest.and_then(|oldest| routes.remove(&oldest));
        }
        let idle = routes.entry(route.clone()).or_insert_with(|| Idle {
            protocol,
            http1: Vec::new(),
            http2: Vec::new(),
            used: now,
        });
        idle.used = now;
        idle.protocol = protocol;
        match connected {
            Connected::Http1(http1) if idle.http1.len() < IDLE_MAX => idle.http1.push((now, http1)),
            Connected::Http2(sender) if idle.http2.len() < IDLE_MAX => {
                idle.http2.push((now, sender));
            }
            Connected::Http1(_) | Connected::Http2(_) => {}
        }
    }

    pub(super) fn close_idle(&self, now: Instant, idle_max: Duration) {
        self.lock().retain(|_, idle| {
            idle.http1.retain_mut(|(since, http1)| {
                now.duration_since(*since) < idle_max && http1.is_ready()
            });
            idle.http2.retain(|(since, sender)| {
                now.duration_since(*since) < idle_max && !sender.is_closed()
            });
            !idle.http2.is_empty() || !idle.http1.is_empty()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Route, Idle>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an HTTP/1.1 connection goes when its answer has been read.
pub(super) struct WayBack {
    pool: Arc<Pool>,
    route: Route,
}

impl WayBack {
    pub(super) fn new(pool: Arc<Pool>, route: Route) -> Self {
        Self { pool, route }
    }

    pub(super) fn give(self, mut http1: Box<Http1>) {
        if http1.is_ready() {
            self.pool
                .put(&self.route, http1.protocol(), Connected::Http1(http1));
        }
    }
}
