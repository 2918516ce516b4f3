//! Fuzz tests of the decoders and the encoders.
//!
//! Input to a decoder starts from responses of real servers (`tests/data/transcripts.tsv`), which the tests then
//! mutate. Output of an encoder is parsed by a second parser, which was written from the server's grammar and shares no
//! code with the encoder. `scripts/fuzz` runs these tests for longer.

pub(crate) mod corpus;
pub(crate) mod grammar;
mod lines;
mod replies;
pub(crate) mod requests;
