//! Layer 3: what keeps the process observable and orderly: metrics, the admin port, logging, tasks, shutdown.

pub mod tasks;
