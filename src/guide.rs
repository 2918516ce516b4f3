//! Protocol guide: the commands sent for each method, the replies, and the results.
#![doc = ""]
#![doc = include_str!("../docs/protocol.md")]
