//! Whatever a server says and whatever is asked: by chance, but not at random.
//!
//! What is decoded begins with what real servers said (`tests/data/transcripts.tsv`) and is changed from there; what is
//! encoded is read again by a parser that was written from the server's grammar and shares nothing with the encoder.
//! `scripts/fuzz` runs these for longer.

mod answers;
pub(crate) mod commands;
mod corpus;
pub(crate) mod grammar;
mod lines;
