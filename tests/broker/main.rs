//! Conformance and behaviour of a whole node over real sockets, MQTT 3.1, 3.1.1 and 5.
//!
//! Each property is written once and run on both journals: `on_memory`, and `on_kafka` where `MILLRACE_TEST_KAFKA`
//! names a Kafka (else it says that it is skipped). `[MQTT-x.y.z-n]` is a statement of MQTT 5; one of 3.1.1 says so.
//!
//! Nothing here asserts how long something takes or sleeps to wait for it: a test waits for packets, with a limit after
//! which it fails. That something does *not* come is shown by what comes after it: the ordinary node of a test has
//! message topics of one partition, so the log's order is one order.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "any packet but the one that should come is a failure")]

#[macro_use]
mod fixture;
mod frame;
mod packets;
mod process;
mod programs;
mod raw;
mod the_log;

mod connecting;
mod connecting_v5;
mod dead_nodes;
mod delivering;
mod exactly_once;
mod foreign_programs;
mod http;
mod idle_connections;
mod in_flight;
mod keeping_alive;
mod mapping;
mod properties;
mod publishing;
mod real_clients;
mod records;
mod recreated;
mod retained;
mod rumqtt;
mod sessions;
mod shutting_down;
mod slow_subscribers;
mod starts;
mod streams;
mod subscribing;
mod subscription_options;
mod two_nodes;
mod wills;
mod wills_of_sessions;
