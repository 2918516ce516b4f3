//! End-to-end tests against DNS servers of other projects: Knot, BIND, unbound and dnsmasq.
//!
//! A test whose server is not installed prints that it was skipped, or fails if `MEMRING_REQUIRE_DNS_SERVERS` is set.
//! One test runs the smoke example, which `cargo test` builds first. `cargo test --test dns_servers` does not, so run
//! `cargo build --example smoke` before it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod disruptions;
mod pod;
mod process;
mod server;
mod service;
mod smoke;

use tokio::sync::RwLock;

/// Held for writing by the test that measures deadlines, so that it runs alone, and for reading by the others.
static MACHINE: RwLock<()> = RwLock::const_new(());
