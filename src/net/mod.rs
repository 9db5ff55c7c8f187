//! Layer 5: sockets of clients.

pub mod connection;
pub mod listener;
pub mod stream;
