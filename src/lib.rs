//! Millrace, a Kafka-native MQTT broker.

pub mod clock;
pub mod config;
pub mod journal;
pub mod message;
pub mod mqtt;
pub mod net;
pub mod node;
pub mod ops;
pub mod route;
pub mod session;
pub mod topics;
