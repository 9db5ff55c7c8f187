//! The Kafka journal against a real Kafka, whose address is in `MILLRACE_TEST_KAFKA`. Without it every test here says
//! that it was skipped. `scripts/with-kafka.sh cargo test --test kafka` starts one.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on fails")]

mod append_and_tail;
mod changed_topics;
mod fence;
mod foreign;
mod support;
