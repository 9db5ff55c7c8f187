//! The tasks of one node among several in a process: held still or ended together, as a process is.
//!
//! Only a simulation has scopes. What is spawned by a task of a scope belongs to the scope.
//!
//! ```text
//! Running ──hold()──▶ Held ──resume()──▶ Running
//!    └──────end()──────┴──▶ Ended
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::task::AbortHandle;

use crate::clock;

/// Finished tasks are forgotten when so many are known, and then when twice as many are known as were left.
const TASKS_FIRST_SWEEP: usize = 64;

/// A scope whose tasks are polled more often without that time passes is held: they spin.
const POLLS_MAX: u32 = 200_000;

thread_local! {
    static CURRENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// A node's tasks. Clones are the same scope.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    standing: Standing,
    /// Polled while held.
    waiting: Vec<Waker>,
    tasks: Vec<AbortHandle>,
    sweep_at: usize,
    /// Polls until the scope holds itself.
    polls_left: Option<u64>,
    /// Polls at one instant of a time that stands still: more than [`POLLS_MAX`] never end.
    polls_at: (Option<Instant>, u32),
    wall_off_by_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Running,
    Held,
    Ended,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            standing: Standing::Running,
            waiting: Vec::new(),
            tasks: Vec::new(),
            sweep_at: TASKS_FIRST_SWEEP,
            polls_left: None,
            polls_at: (None, 0),
            wall_off_by_ms: 0,
        }
    }
}

impl Scope {
    /// A scope without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope of the task that runs, if it has one.
    pub(super) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Does something as one of the scope's tasks would.
    pub fn enter<T>(&self, act: impl FnOnce() -> T) -> T {
        let off_by_ms = clock::put_wall_off(self.lock().wall_off_by_ms);
        let outer = CURRENT.replace(Some(self.clone()));
        let left = Left { outer, off_by_ms };
        let answer = act();
        drop(left);
        answer
    }

    /// `future` as a part of the scope; it is spawned by somebody else, or awaited, and does not end with the scope.
    pub fn run<F: Future + Send + 'static>(&self, future: F) -> Scoped<F::Output> {
        Scoped { scope: self.clone(), future: Some(Box::pin(future)) }
    }

    /// Polls no task any more. What wakes them meanwhile, wakes them at [`Scope::resume`], in that order.
    pub fn hold(&self) {
        let mut shared = self.lock();
        if shared.standing == Standing::Running {
            shared.standing = Standing::Held;
        }
        shared.polls_left = None;
    }

    /// [`Scope::hold`] after so many further polls of its tasks: in the middle of whatever is going on.
    pub fn hold_after(&self, polls: u64) {
        self.lock().polls_left = Some(polls);
    }

    /// Whether it was held because its tasks woke each other for ever.
    pub fn spins(&self) -> bool {
        self.lock().polls_at.1 > POLLS_MAX
    }

    /// Whether it is held, or was ended.
    pub fn is_still(&self) -> bool {
        self.lock().standing != Standing::Running
    }

    /// Polls again.
    pub fn resume(&self) {
        let mut shared = self.lock();
        if shared.standing == Standing::Held {
            shared.standing = Standing::Running;
        }
        shared.polls_left = None;
        let waiting = std::mem::take(&mut shared.waiting);
        drop(shared);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends every task where it is, and what would be spawned later; none is polled again.
    pub fn end(&self) {
        let mut shared = self.lock();
        shared.standing = Standing::Ended;
        let tasks = std::mem::take(&mut shared.tasks);
        shared.waiting.clear();
        drop(shared);
        for task in tasks {
            task.abort();
        }
    }

    /// Puts the scope's wall clock off by so much; its monotonic clock stays.
    pub fn put_wall_off(&self, by_ms: i64) {
        self.lock().wall_off_by_ms = by_ms;
    }

    pub(super) fn adopt(&self, task: AbortHandle) {
        let mut shared = self.lock();
        if shared.standing == Standing::Ended {
            drop(shared);
            task.abort();
            return;
        }
        shared.tasks.push(task);
        if shared.tasks.len() >= shared.sweep_at {
            shared.tasks.retain(|task| !task.is_finished());
            shared.sweep_at = (shared.tasks.len() * 2).max(TASKS_FIRST_SWEEP);
        }
    }

    /// Whether a task may be polled; if not, it is woken when it may.
    fn may_poll(&self, waker: &Waker) -> bool {
        let mut shared = self.lock();
        match shared.polls_left {
            Some(0) => {
                shared.polls_left = None;
                shared.standing = shared.standing.held();
            }
            Some(left) => shared.polls_left = Some(left - 1),
            None => {}
        }
        let now = Some(clock::now());
        shared.polls_at = if shared.polls_at.0 == now { (now, shared.polls_at.1.saturating_add(1)) } else { (now, 1) };
        if shared.polls_at.1 > POLLS_MAX {
            shared.standing = shared.standing.held();
        }
        match shared.standing {
            Standing::Running => true,
            Standing::Held => {
                shared.waiting.push(waker.clone());
                false
            }
            Standing::Ended => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn held(self) -> Self {
        match self {
            Self::Running | Self::Held => Self::Held,
            Self::Ended => Self::Ended,
        }
    }
}

/// What to go back to after [`Scope::enter`], also when it is left by a panic.
struct Left {
    outer: Option<Scope>,
    off_by_ms: i64,
}

impl Drop for Left {
    fn drop(&mut self) {
        clock::put_wall_off(self.off_by_ms);
        CURRENT.replace(self.outer.take());
    }
}

/// A future that runs in a scope.
pub struct Scoped<T> {
    scope: Scope,
    /// `None` only while it is being dropped.
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T> Future for Scoped<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let scope = self.scope.clone();
        if !scope.may_poll(cx.waker()) {
            return Poll::Pending;
        }
        let Some(future) = &mut self.future else { return Poll::Pending };
        scope.enter(|| future.as_mut().poll(cx))
    }
}

impl<T> Drop for Scoped<T> {
    fn drop(&mut self) {
        let future = self.future.take();
        self.scope.enter(|| drop(future));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::super::spawn;
    use super::*;

    /// Counts up every second.
    fn ticking(counter: &Arc<AtomicU32>) -> impl Future<Output = ()> + Send + 'static {
        let counter = Arc::clone(counter);
        async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn after_s(seconds: u64, counter: &AtomicU32) -> u32 {
        tokio::time::sleep(Duration::from_millis(seconds * 1000 + 500)).await;
        counter.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_scope_stands_still_and_then_goes_on() {
        let (scope, counter) = (Scope::new(), Arc::new(AtomicU32::new(0)));
        scope.enter(|| {
            spawn("outer", {
                let inner = ticking(&counter);
                async move {
                    spawn("inner", inner);
                }
            })
        });
        assert_eq!(after_s(2, &counter).await, 2);
        scope.hold();
        assert_eq!(after_s(5, &counter).await, 2, "a task spawned by a task of the scope is held with it");
        scope.resume();
        assert_eq!(after_s(0, &counter).await, 3, "a timer that came due meanwhile fires");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_scope_drops_what_it_ran_and_runs_nothing_more() {
        let (scope, counter) = (Scope::new(), Arc::new(AtomicU32::new(0)));
        let task = scope.enter(|| spawn("ticking", ticking(&counter)));
        assert_eq!(after_s(1, &counter).await, 1);
        scope.end();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(Arc::strong_count(&counter), 1);
        let late = scope.enter(|| spawn("late", ticking(&counter)));
        assert!(late.await.unwrap_err().is_cancelled());
        assert_eq!(counter.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_can_be_held_in_the_middle() {
        let (scope, counter) = (Scope::new(), Arc::new(AtomicU32::new(0)));
        scope.hold_after(3);
        scope.enter(|| spawn("ticking", ticking(&counter)));
        assert_eq!(after_s(9, &counter).await, 2);
        assert!(scope.is_still());
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_that_spins_is_held() {
        let scope = Scope::new();
        scope.enter(|| {
            spawn("spinning", async {
                loop {
                    tokio::task::yield_now().await;
                }
            })
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(scope.spins() && scope.is_still());
    }

    #[tokio::test(start_paused = true)]
    async fn each_scope_has_its_own_wall_clock() {
        clock::simulate_wall(5_000);
        let (scope, other) = (Scope::new(), Scope::new());
        scope.put_wall_off(-2_000);
        assert_eq!(scope.run(async { clock::wall_ms() }).await, 3_000);
        assert_eq!(scope.enter(|| other.enter(clock::wall_ms)), 5_000);
        assert_eq!(clock::wall_ms(), 5_000);
    }
}
