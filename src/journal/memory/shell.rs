//! The async shell: the memory log behind the journal's trait.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::{Acked, FaultPlan, IncarnationId, Limits, MemoryLog, TailId};
use crate::clock;
use crate::journal::{
    AckSink, Answer, Ends, Fenced, Fencing, Health, Isolation, Journal, JournalError, NotTaken, Offset, Partition,
    ReadAnswer, Tail, TailEvent, Ticket, TopicDescription, TopicIndex, TopicSpec,
};
use crate::message::RecordRef;
use crate::ops::tasks;

/// A [`MemoryLog`] that several journals of this process use.
#[derive(Clone, Debug)]
pub struct SharedLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: MemoryLog,
    /// Whom to wake when a tail has something to say.
    listeners: BTreeMap<TailId, Arc<Notify>>,
    ports: BTreeMap<IncarnationId, Port>,
}

/// What a journal and its task have in common.
#[derive(Debug)]
struct Port {
    /// Wakes the task.
    work: Arc<Notify>,
    /// Who waits until every append up to this one has had its outcome.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    /// The journal was dropped: the task ends once it has nothing more to hand out.
    dropped: bool,
}

impl SharedLog {
    /// An empty log.
    pub fn new(plan: FaultPlan, limits: Limits) -> Self {
        let log = MemoryLog::new(plan, limits);
        let state = State { log, listeners: BTreeMap::new(), ports: BTreeMap::new() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// Does something to the log: fences a producer, compacts a partition, deletes a kafka topic.
    pub fn with<T>(&self, act: impl FnOnce(&mut MemoryLog) -> T) -> T {
        let mut state = self.shared.lock();
        let answer = act(&mut state.log);
        state.wake_tails();
        for port in state.ports.values() {
            port.work.notify_one();
        }
        answer
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_tails(&mut self) {
        while let Some(tail) = self.log.poll_woken() {
            if let Some(listener) = self.listeners.get(&tail) {
                listener.notify_one();
            }
        }
    }

    fn poll_tail(&mut self, id: TailId) -> Option<TailEvent> {
        let due_ms = self.log.next_due_ms();
        let event = self.log.poll_tail(id);
        if self.log.next_due_ms() != due_ms {
            // Any task will do to wake a tail that was made to wait.
            for port in self.ports.values() {
                port.work.notify_one();
            }
        }
        event
    }
}

/// One node's journal on a [`SharedLog`]: one incarnation.
#[derive(Debug)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
    id: IncarnationId,
    producer_id: i64,
    work: Arc<Notify>,
    relief: Arc<Notify>,
}

impl MemoryJournal {
    /// Opens a journal whose topic indexes stand for `names`; they need not exist yet. Outcomes go to `sink`. To be called
    /// within a tokio runtime that has time.
    pub fn open(log: &SharedLog, names: Vec<String>, sink: Arc<dyn AckSink>) -> Self {
        let shared = Arc::clone(&log.shared);
        let (work, relief) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (id, producer_id) = {
            let mut state = shared.lock();
            let id = state.log.open(names);
            state.ports.insert(id, Port { work: Arc::clone(&work), flushes: Vec::new(), dropped: false });
            (id, state.log.producer_id(id))
        };
        let driver =
            Driver { shared: Arc::clone(&shared), id, work: Arc::clone(&work), relief: Arc::clone(&relief), sink };
        tasks::spawn("memory journal", driver.run());
        Self { shared, id, producer_id, work, relief }
    }

    /// This incarnation's name in the log.
    pub fn incarnation(&self) -> IncarnationId {
        self.id
    }

    /// Asks the log something, unless the fault plan lets the question go unanswered.
    fn ask<'a, T: Send + 'a>(
        &'a self,
        doing: &'static str,
        question: impl FnOnce(&mut MemoryLog) -> Result<T, JournalError> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let mut state = self.shared.lock();
            state.log.may_answer_to(self.id, doing)?;
            question(&mut state.log)
        })
    }
}

impl Drop for MemoryJournal {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.log.close(self.id);
        if let Some(port) = state.ports.get_mut(&self.id) {
            port.dropped = true;
        }
        drop(state);
        self.work.notify_one();
    }
}

impl Journal for MemoryJournal {
    fn partitions(&self, topic: TopicIndex) -> u32 {
        self.shared.lock().log.partitions(self.id, topic)
    }

    fn topic_id(&self, topic: TopicIndex) -> Option<u128> {
        self.shared.lock().log.topic_id(self.id, topic)
    }

    fn producer_id(&self) -> i64 {
        self.producer_id
    }

    fn fence<'a>(&'a self, producer_id: i64, partitions: &'a [Partition], _limit: Duration) -> Fenced<'a> {
        Box::pin(async move {
            let mut state = self.shared.lock();
            let log = &mut state.log;
            let fenced = partitions.iter().map(|partition| log.fence_partition(self.id, producer_id, *partition));
            let fenced = fenced.collect();
            state.wake_tails();
            fenced
        })
    }

    fn append(&self, ticket: Ticket, partition: Partition, record: &RecordRef<'_>) -> Result<(), NotTaken> {
        self.shared.lock().log.append(self.id, ticket, partition, record)?;
        self.work.notify_one();
        Ok(())
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let relieved = self.relief.notified();
                if self.shared.lock().log.has_room(self.id) {
                    return;
                }
                relieved.await;
            }
        })
    }

    fn flush(&self, limit: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        let (done, is_done) = oneshot::channel();
        let mut state = self.shared.lock();
        let taken = state.log.taken(self.id);
        if let Some(port) = state.ports.get_mut(&self.id) {
            port.flushes.retain(|(_, waiting)| !waiting.is_closed());
            port.flushes.push((taken, done));
        }
        drop(state);
        self.work.notify_one();
        Box::pin(async move { matches!(tokio::time::timeout(limit, is_done).await, Ok(Ok(()))) })
    }

    fn tail(&self, isolation: Isolation) -> Box<dyn Tail> {
        let wake = Arc::new(Notify::new());
        let mut state = self.shared.lock();
        let id = state.log.open_tail(self.id, isolation);
        state.listeners.insert(id, Arc::clone(&wake));
        Box::new(MemoryTail { shared: Arc::clone(&self.shared), id, wake })
    }

    fn ends<'a>(&'a self, partitions: &'a [Partition]) -> Answer<'a, Vec<Ends>> {
        self.ask("the ends of partitions", |log| log.ends(self.id, partitions))
    }

    fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Answer<'_, ReadAnswer> {
        self.ask("a read by offset", move |log| log.read(self.id, partition, from, bytes_max, isolation))
    }

    fn describe<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<TopicDescription>>> {
        self.ask("to describe kafka topics", |log| Ok(log.describe(names)))
    }

    fn create<'a>(&'a self, specs: &'a [TopicSpec]) -> Answer<'a, ()> {
        self.ask("to create kafka topics", |log| log.create(specs))
    }

    fn fencing<'a>(&'a self, _names: &'a [String]) -> Answer<'a, Fencing> {
        self.ask("the fences that are allowed", |log| {
            Ok(Fencing { form: Some(log.fence_form()), not_allowed: Vec::new() })
        })
    }

    fn health(&self) -> Health {
        self.shared.lock().log.health(self.id)
    }
}

/// The journal's own task: lets time pass and hands out what became of appends.
struct Driver {
    shared: Arc<Shared>,
    id: IncarnationId,
    work: Arc<Notify>,
    relief: Arc<Notify>,
    sink: Arc<dyn AckSink>,
}

/// What one look at the log found for a driver to do.
struct Round {
    flushed: Vec<oneshot::Sender<()>>,
    next_due: Option<Duration>,
    is_last: bool,
}

impl Driver {
    async fn run(self) {
        let mut acked = Vec::new();
        loop {
            let round = self.on_work(clock::true_wall_ms(), &mut acked);
            if !acked.is_empty() {
                for acked in acked.drain(..) {
                    self.sink.on_acks(&acked.group());
                }
                self.sink.flush();
                self.relief.notify_waiters();
            }
            for flushed in round.flushed {
                let _nobody_waits_any_more = flushed.send(());
            }
            if round.is_last {
                return;
            }
            match round.next_due {
                None => self.work.notified().await,
                Some(after) => {
                    tokio::select! {
                        biased;
                        () = self.work.notified() => {}
                        () = tokio::time::sleep(after) => {}
                    }
                }
            }
        }
    }

    fn on_work(&self, now_ms: i64, acked: &mut Vec<Acked>) -> Round {
        let mut state = self.shared.lock();
        let State { log, ports, .. } = &mut *state;
        log.advance(now_ms);
        acked.extend(std::iter::from_fn(|| log.poll_acks(self.id)));
        let mut round = Round {
            flushed: Vec::new(),
            next_due: log
                .next_due_ms()
                .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms).max(1).unsigned_abs())),
            is_last: true,
        };
        for (id, port) in ports.iter_mut() {
            if *id == self.id {
                let settled = port.flushes.extract_if(.., |(taken, _)| log.is_settled_up_to(*id, *taken));
                round.flushed.extend(settled.map(|(_, done)| done));
                round.is_last = port.dropped && log.is_settled(*id);
            } else if log.has_acks(*id) {
                port.work.notify_one();
            }
        }
        if round.is_last {
            ports.remove(&self.id);
        }
        state.wake_tails();
        round
    }
}

/// A tail of a [`MemoryJournal`]; it may outlive it.
#[derive(Debug)]
struct MemoryTail {
    shared: Arc<Shared>,
    id: TailId,
    wake: Arc<Notify>,
}

impl Tail for MemoryTail {
    fn follow(&mut self, partition: Partition, from: Offset) {
        self.shared.lock().log.follow(self.id, partition, from);
        self.wake.notify_one();
    }

    fn unfollow(&mut self, partition: Partition) {
        self.shared.lock().log.unfollow(self.id, partition);
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = TailEvent> + Send + '_>> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.shared.lock().poll_tail(self.id) {
                    return event;
                }
                self.wake.notified().await;
            }
        })
    }
}

impl Drop for MemoryTail {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.log.close_tail(self.id);
        state.listeners.remove(&self.id);
    }
}
