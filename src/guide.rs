//! The protocol, as far as users of this crate meet it: commands, replies, and what methods make of them.
#![doc = ""]
#![doc = include_str!("../docs/protocol.md")]
