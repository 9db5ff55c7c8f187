//! Layer 3: what keeps the process observable and orderly: metrics, the admin port, logging, tasks, shutdown.

pub mod admin;
pub mod logging;
pub mod metrics;
pub mod shutdown;
pub mod tasks;
