//! The only spawn: every task has a name, and one that panics is reported with it.

mod scope;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

pub use scope::{Scope, Scoped};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Runs `future` as a task of the current runtime. A panic in it is logged with `name` and counted; it costs no second
/// task, and nothing while the task runs. A task of a [`Scope`] spawns into that scope.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let watched = Watched { future, _watch: PanicWatch { name } };
    let Some(scope) = Scope::current() else { return tokio::spawn(watched) };
    let task = tokio::spawn(scope.run(watched));
    scope.adopt(task.abort_handle());
    task
}

pin_project_lite::pin_project! {
    /// Written by hand: an async block would hold the future twice, once as captured and once as awaited.
    struct Watched<F> {
        #[pin]
        future: F,
        _watch: PanicWatch,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

/// Tasks of this process that panicked.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Dropped by unwinding, it knows of the panic.
struct PanicWatch {
    name: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.name, "a task panicked: this is a defect of Millrace");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_task_is_counted_and_a_finished_one_is_not() {
        let before = panics();
        assert_eq!(spawn("fine", async { 7 }).await.unwrap(), 7);
        assert_eq!(panics(), before);
        spawn("broken", async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(panics(), before + 1);
    }
}
