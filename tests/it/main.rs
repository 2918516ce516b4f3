//! The client against real memcached processes, real DNS over UDP and TCP, and scripted servers.
#![expect(clippy::unwrap_used, reason = "a test fails with a panic")]

mod auth;
mod batches;
mod binary_keys;
mod breaker;
mod command_futures;
mod commands;
mod computed;
mod deadlines;
mod dns;
mod dns_without_glue;
mod fetch;
mod fetch_leases;
mod fetch_without_cas;
mod keys;
mod large_values;
mod leases;
mod lifecycle;
mod meta;
mod node_commands;
mod old_servers;
mod placement;
mod protocol_guide;
mod read_modify_write;
mod runtimes;
mod scripted;
mod server_failures;
mod server_pauses;
mod stats_and_metadump;
mod stress;
mod support;
mod topology_changes;
mod value_limits;
