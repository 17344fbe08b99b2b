//! Idle upstream connections, kept per route for the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::http1::Http1;
use super::{Connected, Http2, Protocol, Route};

/// Routes that are remembered; the one that idled longest makes room.
const ROUTES_MAX: usize = 1024;
/// Idle HTTP/1.1 connections kept per route.
const IDLE_MAX: usize = 64;

/// Idle connections by route.
#[derive(Default)]
pub(super) struct Pool {
    routes: Mutex<HashMap<Route, Idle>>,
}

struct Idle {
    protocol: Protocol,
    http1: Vec<(Instant, Box<Http1>)>,
    http2: Option<Http2>,
    used: Instant,
}

impl Pool {
    /// The protocol of `route`, if a connection to it is ready now.
    pub(super) fn protocol(&self, route: &Route) -> Option<Protocol> {
        let mut routes = self.lock();
        let idle = routes.get_mut(route)?;
        // The newest is the one that is taken next; asking the others too would cost each new
        // client a system call for each of them.
        while idle
            .http1
            .last_mut()
            .is_some_and(|(_, newest)| !newest.is_ready())
        {
            idle.http1.pop();
        }
        idle.forget_closed_http2();
        (idle.http2.is_some() || !idle.http1.is_empty()).then_some(idle.protocol)
    }

    /// A connection on which a request can be sent now.
    pub(super) fn take(&self, route: &Route) -> Option<Connected> {
        let mut routes = self.lock();
        let idle = routes.get_mut(route)?;
        idle.used = Instant::now();
        while let Some((_, mut http1)) = idle.http1.pop() {
            if http1.is_ready() {
                return Some(Connected::Http1(http1));
            }
        }
        idle.forget_closed_http2();
        idle.http2.clone().map(Connected::Http2)
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
            http2: None,
            used: now,
        });
        idle.used = now;
        idle.protocol = protocol;
        match connected {
            Connected::Http1(http1) if idle.http1.len() < IDLE_MAX => idle.http1.push((now, http1)),
            Connected::Http1(_) => {}
            Connected::Http2(sender) => idle.http2 = Some(sender),
        }
    }

    pub(super) fn close_idle(&self, now: Instant, idle_max: Duration) {
        self.lock().retain(|_, idle| {
            idle.http1.retain_mut(|(since, http1)| {
                now.duration_since(*since) < idle_max && http1.is_ready()
            });
            idle.forget_closed_http2();
            if now.duration_since(idle.used) >= idle_max {
                idle.http2 = None;
            }
            idle.http2.is_some() || !idle.http1.is_empty()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Route, Idle>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn forget_closed_http2(&mut self) {
        self.http2 = self.http2.take().filter(|sender| !sender.is_closed());
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
