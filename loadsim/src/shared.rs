//! Where the workers and the conductor of a run meet: three words from the conductor, a few counters from each worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far a worker is; those of several add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections that became ready.
    pub ready: u64,
    /// Connections that failed, before or after.
    pub failed: u64,
    /// Publishers that have still to send or wait for an answer.
    pub unfinished: u64,
    /// Deliveries that are owed so far.
    pub owed: u64,
    /// Messages that arrived for the first time.
    pub delivered: u64,
    /// Clients that are to come back, or have not caught up.
    pub away: u64,
}

#[derive(Debug, Default)]
struct Board {
    ready: AtomicU64,
    failed: AtomicU64,
    unfinished: AtomicU64,
    owed: AtomicU64,
    delivered: AtomicU64,
    away: AtomicU64,
}

/// Seen by all threads of a run.
#[derive(Debug)]
pub struct Shared {
    /// 0: not yet.
    start_ns: AtomicU64,
    /// 0: as planned.
    end_ns: AtomicU64,
    is_stopped: AtomicBool,
    boards: Vec<Board>,
}

impl Shared {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        let boards = (0..workers).map(|_| Board::default()).collect();
        Self { start_ns: AtomicU64::new(0), end_ns: AtomicU64::new(0), is_stopped: AtomicBool::new(false), boards }
    }

    /// Lets the workers publish from `start_ns` on.
    pub fn start(&self, start_ns: u64) {
        self.start_ns.store(start_ns, Ordering::Release);
    }

    /// When the load starts, once that is known.
    pub fn start_ns(&self) -> Option<u64> {
        Some(self.start_ns.load(Ordering::Acquire)).filter(|start_ns| *start_ns > 0)
    }

    /// Lets the workers intend no message after `end_ns`, which is earlier than planned.
    pub fn end(&self, end_ns: u64) {
        self.end_ns.store(end_ns, Ordering::Release);
    }

    /// When the load ends, if earlier than planned.
    pub fn end_ns(&self) -> Option<u64> {
        Some(self.end_ns.load(Ordering::Acquire)).filter(|end_ns| *end_ns > 0)
    }

    /// Lets the workers end.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// Whether the workers are to end.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// A worker tells how far it is.
    pub fn publish(&self, worker: usize, progress: &Progress) {
        let Some(board) = self.boards.get(worker) else { return };
        board.ready.store(progress.ready, Ordering::Relaxed);
        board.failed.store(progress.failed, Ordering::Relaxed);
        board.owed.store(progress.owed, Ordering::Relaxed);
        board.delivered.store(progress.delivered, Ordering::Relaxed);
        board.away.store(progress.away, Ordering::Relaxed);
        // Last: whoever sees that nothing is unfinished sees all that is owed.
        board.unfinished.store(progress.unfinished, Ordering::Release);
    }

    /// How far all workers are together.
    pub fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        for board in &self.boards {
            sum.unfinished += board.unfinished.load(Ordering::Acquire);
            sum.ready += board.ready.load(Ordering::Relaxed);
            sum.failed += board.failed.load(Ordering::Relaxed);
            sum.owed += board.owed.load(Ordering::Relaxed);
            sum.delivered += board.delivered.load(Ordering::Relaxed);
            sum.away += board.away.load(Ordering::Relaxed);
        }
        sum
    }
}
