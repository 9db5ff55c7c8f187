//! The Kafka journal against a real Kafka, whose address is in `MILLRACE_TEST_KAFKA`. Without it every test here says
//! that it was skipped. `scripts/with-kafka.sh cargo test --test kafka` starts one.

mod append_and_tail;
mod support;
