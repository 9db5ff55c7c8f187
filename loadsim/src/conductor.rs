//! The phases of a run: connect all, load, drain. The workers do the work; this waits and reads CPU time.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::process::{Memory, Process};
use crate::publisher::Plan;
use crate::shared::{Progress, Shared};
use crate::spec::{Receivers, Spec};
use crate::sys;
use crate::tally::Outcome;
use crate::verify::{Proof, judge};
use crate::worker::{Options, Worker};

/// How often the conductor looks at the workers.
const LOOK: Duration = Duration::from_millis(10);

/// From the decision to start until the start, so that all workers hear of it in time.
const LEAD_NS: u64 = 100_000_000;

/// After everything has arrived: duplicates may still come.
const SETTLE_NS: u64 = 200_000_000;

/// Files that are not connections.
const FILES_BESIDES: u64 = 64;

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A topic or filter is none.
    #[error("{0}")]
    Names(String),
    /// Nobody would get anything.
    #[error("no subscriber's filter matches any publisher's topic: see --topic and --filter")]
    NoMatch,
    /// The process to watch or to end is not there.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// Too few open files.
    #[error("{wanted} connections need more open files than the {limit} allowed: see ulimit -n")]
    OpenFiles {
        /// Connections.
        wanted: u64,
        /// Open files.
        limit: u64,
    },
    /// The run cannot begin without all of its connections.
    #[error("{failed} of {wanted} connections failed: {why}")]
    Connections {
        /// How many.
        failed: u64,
        /// Of how many.
        wanted: u64,
        /// The most frequent reason.
        why: String,
    },
    /// The system refused a thread, poll or timer.
    #[error("the system: {0}")]
    System(#[from] io::Error),
}

/// CPU seconds of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// In the measured window.
    pub window_s: Option<f64>,
    /// Since the process began.
    pub total_s: Option<f64>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// Counts and latencies.
    pub outcome: Outcome,
    /// Lost, duplicated, reordered.
    pub proof: Proof,
    /// Length of the measured window.
    pub window_s: f64,
    /// From the first connection until all were ready.
    pub connecting_s: f64,
    /// Messages intended in the measured window; `None` in a closed loop.
    pub intended: Option<u64>,
    /// Of loadsim itself.
    pub own_cpu: Cpu,
    /// Of loadsim at the end of the window.
    pub own_memory: Option<Memory>,
    /// Of the process watched.
    pub other_cpu: Cpu,
    /// Of the process watched, at the end of the window.
    pub other_memory: Option<Memory>,
    /// Ended by hand.
    pub is_interrupted: bool,
    /// When the process was ended that was to be ended.
    pub killed_ns: Option<u64>,
}

/// Runs it all, on this thread and those of the workers.
///
/// # Errors
/// There was no run; a run that went badly is none.
pub fn run(spec: Spec, pid: Option<u32>) -> Result<Run, RunError> {
    let receivers = Receivers::of(&spec).map_err(RunError::Names)?;
    if spec.publishing.publishers > 0
        && spec.subscribing.subscribers > 0
        && receivers.of_topic.iter().all(Vec::is_empty)
    {
        return Err(RunError::NoMatch);
    }
    let processes = [pid, spec.kill.map(|kill| kill.pid)];
    if let Some(pid) = processes.into_iter().flatten().find(|pid| Process::Pid(*pid).cpu_s().is_none()) {
        return Err(RunError::NoProcess(pid));
    }
    let wanted = spec.connections();
    if let Some(limit) = sys::raise_open_files()
        && wanted + FILES_BESIDES > limit
    {
        return Err(RunError::OpenFiles { wanted, limit });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Conductor::begin(spec, receivers, pid)?.conduct())
}

struct Conductor {
    spec: Arc<Spec>,
    receivers: Arc<Receivers>,
    shared: Arc<Shared>,
    clock: Clock,
    connect_start_ns: u64,
    other: Option<Process>,
    workers: Vec<JoinHandle<io::Result<Outcome>>>,
    interrupt: Pin<Box<dyn Future<Output = ()>>>,
    is_interrupted: bool,
}

impl Conductor {
    fn begin(spec: Spec, receivers: Receivers, pid: Option<u32>) -> Result<Self, RunError> {
        let clock = Clock::start();
        let threads = usize::try_from(spec.threads).unwrap_or(1);
        let options = Options {
            spec: Arc::new(spec),
            receivers: Arc::new(receivers),
            shared: Arc::new(Shared::new(threads)),
            clock,
            connect_start_ns: clock.now_ns(),
        };
        let workers = (0..threads)
            .map(|index| {
                let worker = Worker::new(index, options.clone())?;
                thread::Builder::new().name(format!("worker-{index}")).spawn(move || worker.run())
            })
            .collect::<io::Result<Vec<_>>>()?;
        let Options { spec, receivers, shared, clock, connect_start_ns } = options;
        Ok(Self {
            spec,
            receivers,
            shared,
            clock,
            connect_start_ns,
            other: pid.map(Process::Pid),
            workers,
            interrupt: interrupt(),
            is_interrupted: false,
        })
    }

    async fn conduct(mut self) -> Result<Run, RunError> {
        let wanted = self.spec.connections();
        let is_tolerant = self.spec.is_tolerant;
        self.wait_until(|progress, _| {
            progress.ready + progress.failed >= wanted || progress.failed > 0 && !is_tolerant
        })
        .await;
        let connected = self.shared.progress();
        if connected.failed > 0 && !is_tolerant {
            return Err(self.give_up());
        }
        let connected_ns = self.clock.now_ns();
        let start_ns = connected_ns + LEAD_NS;
        self.shared.start(start_ns);

        let Range { start: window_ns, end: end_ns } = self.spec.timing.window(start_ns);
        self.wait_until(|_, now_ns| now_ns >= window_ns).await;
        let (own_before, other_before) = (Process::Own.cpu_s(), self.other.and_then(Process::cpu_s));
        let killed_ns = self.kill(window_ns).await?;
        let is_interrupted = self.load(end_ns).await;
        let ended_ns = self.shared.end_ns().unwrap_or_else(|| self.clock.now_ns());
        let (own_after, other_after) = (Process::Own.cpu_s(), self.other.and_then(Process::cpu_s));
        let (own_memory, other_memory) = (Process::Own.memory(), self.other.and_then(Process::memory));
        self.drain(ended_ns).await;

        let outcome = self.stop()?;
        let has_owed = self.spec.publishing.publishers > 0;
        let owed = has_owed.then_some(&outcome.owed[..]);
        let proof = judge(&outcome.tracks, outcome.foreign, &self.receivers.of_subscriber, owed);
        Ok(Run {
            proof,
            window_s: seconds(ended_ns.saturating_sub(window_ns)),
            connecting_s: seconds(connected_ns - self.connect_start_ns),
            intended: intended(&self.spec.plan(start_ns), window_ns..ended_ns),
            own_cpu: Cpu { window_s: difference(own_before, own_after), total_s: Process::Own.cpu_s() },
            own_memory,
            other_cpu: Cpu { window_s: difference(other_before, other_after), total_s: other_after },
            other_memory,
            is_interrupted,
            killed_ns,
            outcome,
        })
    }

    /// Ends the process that is to be ended, when it is time; when that was.
    async fn kill(&mut self, window_ns: u64) -> Result<Option<u64>, RunError> {
        let Some(kill) = self.spec.kill else { return Ok(None) };
        let due_ns = window_ns.saturating_add(kill.after_ns);
        self.wait_until(|_, now_ns| now_ns >= due_ns).await;
        if self.is_interrupted {
            return Ok(None);
        }
        sys::kill(kill.pid)?;
        Ok(Some(self.clock.now_ns()))
    }

    /// Until the time is over or all messages there are to be have come. True if it was ended by hand.
    async fn load(&mut self, end_ns: u64) -> bool {
        let (publishing, subscribing) = (&self.spec.publishing, &self.spec.subscribing);
        let sends_count = publishing.messages.is_some();
        let receives_count = subscribing.messages.unwrap_or(u64::MAX);
        let connections = self.spec.connections();
        self.wait_until(|progress, now_ns| {
            now_ns >= end_ns
                || sends_count && progress.unfinished == 0
                || progress.delivered >= receives_count
                || progress.failed >= connections
        })
        .await;
        let is_interrupted = self.is_interrupted;
        // Interrupting once more cuts the drain short.
        (self.interrupt, self.is_interrupted) = (interrupt(), false);
        if is_interrupted {
            let end_ns = self.clock.now_ns() + LEAD_NS;
            self.shared.end(end_ns);
            self.wait_until(|_, now_ns| now_ns >= end_ns).await;
        }
        is_interrupted
    }

    /// Until everything has been answered and delivered, or for as long as is allowed.
    async fn drain(&mut self, ended_ns: u64) {
        let deadline_ns = ended_ns.saturating_add(self.spec.timing.drain_ns);
        let look_ns = ended_ns + LEAD_NS;
        self.wait_until(|progress, now_ns| {
            now_ns >= deadline_ns
                || now_ns >= look_ns
                    && progress.unfinished == 0
                    && progress.delivered >= progress.owed
                    && progress.away == 0
        })
        .await;
        if self.spec.subscribing.subscribers > 0 {
            let settled_ns = self.clock.now_ns() + SETTLE_NS;
            self.wait_until(|_, now_ns| now_ns >= settled_ns).await;
        }
    }

    async fn wait_until(&mut self, mut is_done: impl FnMut(Progress, u64) -> bool) {
        while !self.is_interrupted && !is_done(self.shared.progress(), self.clock.now_ns()) {
            if self.workers.iter().any(JoinHandle::is_finished) {
                self.is_interrupted = true;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = &mut self.interrupt => self.is_interrupted = true,
            }
        }
    }

    fn stop(&mut self) -> Result<Outcome, RunError> {
        self.shared.stop();
        let mut sum = Outcome::default();
        for worker in self.workers.drain(..) {
            let outcome = worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
            sum.add(outcome?);
        }
        Ok(sum)
    }

    fn give_up(&mut self) -> RunError {
        let wanted = self.spec.connections();
        match self.stop() {
            Ok(outcome) => {
                let tally = outcome.tally;
                let why = tally.errors.into_iter().max_by_key(|(_, count)| *count).map(|(error, _)| error);
                RunError::Connections { failed: tally.refused + tally.lost, wanted, why: why.unwrap_or_default() }
            }
            Err(error) => error,
        }
    }
}

fn interrupt() -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the signal the run ends as planned.
            std::future::pending::<()>().await;
        }
    })
}

/// Messages intended in the measured window.
fn intended(plan: &Plan, window: Range<u64>) -> Option<u64> {
    Some(plan.intended_before(window.end)?.saturating_sub(plan.intended_before(window.start)?))
}

fn difference(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    Some(after? - before?)
}

#[expect(clippy::cast_precision_loss, reason = "runs are far shorter than 2^52 ns")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
