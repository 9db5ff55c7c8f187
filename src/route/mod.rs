//! Layer 1: who wants a topic ([`trie`]), and where it lives in Kafka ([`mapping`], [`partition`]).

pub mod mapping;
pub mod partition;
pub mod trie;
