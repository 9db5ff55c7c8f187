//! Faults of a real Kafka, and of the way to it, under load. Every run starts a Kafka of its own, appends with unique
//! ids and follows the log meanwhile, causes one fault, and compares what was promised with what the log holds:
//! no false `Written`, no false `Refused`, every append has one outcome, and all works again without a restart.
//!
//! What takes long is ignored here and runs with `make test-faults`. Nothing asserts how long something takes; what
//! has not come within minutes hangs. `MILLRACE_FAULTS_TABLE` names a Markdown file whose table gets the results.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod brokers_away;
mod check;
mod cluster;
mod crash;
mod cut;
mod fence;
mod follow;
mod kafka_nodes;
mod ledger;
mod load;
mod nodes;
mod proxy;
mod stage;
mod table;
mod topic;
