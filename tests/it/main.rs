//! The client against real memcached processes, real DNS over UDP and TCP, and servers that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

mod auth;
mod binary;
mod classic;
mod commands;
mod contention;
mod faults;
mod fetch;
mod following;
mod guide;
mod inspect;
mod keys;
mod large;
mod many;
mod meta;
mod old;
mod placement;
mod polling;
mod recipes;
mod support;
