//! The client against real memcached processes, real DNS over UDP and TCP, and servers that misbehave.

mod commands;
mod faults;
mod following;
mod many;
mod support;
