//! The client against real memcached processes, real DNS over UDP and TCP, and servers that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

mod auth;
mod classic;
mod commands;
mod faults;
mod fetch;
mod following;
mod inspect;
mod keys;
mod many;
mod meta;
mod placement;
mod support;
