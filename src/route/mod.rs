//! Layer 1: who wants a topic ([`trie`]), and where it lives in Kafka ([`mapping`]).

pub mod mapping;
pub mod trie;
