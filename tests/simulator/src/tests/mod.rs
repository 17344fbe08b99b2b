//! The simulator seen from outside: over TLS, with HTTP/1.1 and HTTP/2.

mod client;

mod agent;
mod bill;
mod faults;
mod refusals;
mod shapes;
