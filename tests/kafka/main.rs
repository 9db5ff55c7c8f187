//! The Kafka journal against a real Kafka, whose address is in `MILLRACE_TEST_KAFKA`. Without it every test here says
//! that it was skipped. `scripts/with-kafka.sh cargo test --test kafka` starts one.
//!
//! The tests in `faults` kill, pause and restart Kafka nodes by `scripts/kafka.sh`: they take the port of the first node
//! from `MILLRACE_TEST_KAFKA`, are ignored unless asked for, and want a Kafka of their own:
//! `scripts/with-kafka.sh cargo test --test kafka faults -- --ignored --test-threads 1`.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on fails")]

mod append_and_tail;
mod changed_topics;
mod faults;
mod fence;
mod foreign;
mod support;
