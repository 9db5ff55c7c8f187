//! The codec from outside: vectors, round trips, differences to other codecs, corpora.
//!
//! - `vectors`: hex → packet → hex, and refused packets with their reason, in `vectors/*.txt`
//! - `roundtrip`: generated packets of every version, in one piece, split and pipelined
//! - `answers`: what the encoder leaves out, maps and refuses
//! - `topics`: names, filters, share names, client ids
//! - `differential`: against `rmqtt-codec` and `mqtt-proto`
//! - `corpus`: `fuzz/corpus` replayed, and a short random fuzz run
//!
//! `generate` and `checks` are shared with the fuzz targets.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics has failed, and what it does not name it does not mean"
)]

mod answers;
mod checks;
mod compact;
mod corpus;
mod differential;
mod generate;
mod roundtrip;
mod topics;
mod vectors;
