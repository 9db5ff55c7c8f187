//! The only place that knows Kafka's protocol.

pub mod records;
