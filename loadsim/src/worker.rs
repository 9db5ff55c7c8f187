//! One thread: an event loop over its share of the connections. Per wake-up of a connection one read and one write.

mod again;
mod drive;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::client::{Client, Role, State};
use crate::clock::{Clock, nanos};
use crate::conn::{Conn, ConnError};
use crate::publisher::Plan;
use crate::schedule::{Schedule, Turns};
use crate::shared::{Progress, Shared};
use crate::spec::{Receivers, Spec};
use crate::sys::Timer;
use crate::tally::{Outcome, Tally};
use crate::verify::{Owed, Owing, Verifier};
use again::Acked;

/// Connections are opened at multiples of this time.
const CONNECT_TICK_NS: u64 = 1_000_000;

/// A worker looks this often at what the others do.
const LOOK_NS: u64 = 20_000_000;

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 256 * 1024;
const TIMER: Token = Token(usize::MAX);

/// What comes due at a time for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Connect,
    KeepAlive,
    /// To be made again.
    Open,
}

/// The actor of one thread.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    spec: Arc<Spec>,
    receivers: Arc<Receivers>,
    shared: Arc<Shared>,
    clock: Clock,
    poll: Poll,
    timer: Timer,
    conns: Vec<Conn>,
    connect_schedule: Schedule,
    connect_turns: Turns,
    /// Places of the publishers in `conns`, in the order of their turns.
    publishers: Vec<usize>,
    publish_turns: Turns,
    /// Known once the run starts.
    plan: Option<Plan>,
    next_tick_ns: u64,
    next_look_ns: u64,
    deadlines: BinaryHeap<Reverse<(u64, usize, Deadline)>>,
    /// Connections with something to do that no event will tell of.
    runnable: VecDeque<usize>,
    buffer: Vec<u8>,
    out: BytesMut,
    payload: Vec<u8>,
    tally: Tally,
    verifier: Verifier,
    acked: Acked,
}

/// What all workers of a run have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run.
    pub spec: Arc<Spec>,
    /// Who is owed what.
    pub receivers: Arc<Receivers>,
    /// Where the workers and the conductor meet.
    pub shared: Arc<Shared>,
    /// Time.
    pub clock: Clock,
    /// When the first connection is to be opened.
    pub connect_start_ns: u64,
}

impl Worker {
    /// Worker `index` has every connection whose index is that, modulo the number of workers.
    ///
    /// # Errors
    /// The system has no poll or timer.
    pub fn new(index: usize, options: Options) -> io::Result<Self> {
        let Options { spec, receivers, shared, clock, connect_start_ns } = options;
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        let total = spec.connections();
        let own: Vec<u64> = (index as u64..total).step_by(usize::try_from(spec.threads).unwrap_or(1)).collect();
        let target = &spec.target;
        let conns: Vec<Conn> = own
            .iter()
            .filter_map(|id| u32::try_from(*id).ok())
            .map(|id| {
                let role = spec.role(id);
                let lasting = spec.lasting(&role);
                Conn::new(id, Client::new(role, target.version, target.keep_alive_s, lasting))
            })
            .collect();
        let ids = conns.iter().enumerate().filter_map(|(at, conn)| match &conn.client.role {
            Role::Publisher(publisher) => Some((at, u64::from(publisher.id()))),
            Role::Idle | Role::Probe { .. } | Role::Subscriber(_) => None,
        });
        let (publishers, publisher_ids) = ids.unzip();
        let is_judged = spec.publishing.publishers > 0;
        // Without publishers, whatever comes is measured: when it was intended is for others to decide.
        let (owing, window) = if is_judged { (Owing::Run(spec.run), 0..0) } else { (Owing::FromFirst, 0..u64::MAX) };
        let payload = (0..spec.publishing.payload_bytes).map(|at| b'a' + u8::try_from(at % 26).unwrap_or(0)).collect();
        Ok(Self {
            index,
            connect_schedule: Schedule::new(connect_start_ns, target.connect_rate, CONNECT_TICK_NS),
            connect_turns: Turns::new(own, total),
            publish_turns: Turns::new(publisher_ids, spec.publishing.publishers.into()),
            publishers,
            plan: None,
            next_tick_ns: 0,
            next_look_ns: 0,
            deadlines: BinaryHeap::new(),
            runnable: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            out: BytesMut::new(),
            payload,
            tally: Tally { window, ..Tally::default() },
            verifier: Verifier::new(owing),
            acked: Acked::new(spec.topics()),
            spec,
            receivers,
            shared,
            clock,
            poll,
            timer,
            conns,
        })
    }

    /// Runs until the conductor says stop.
    ///
    /// # Errors
    /// The poll failed.
    pub fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.shared.is_stopped() {
            let now_ns = self.clock.now_ns();
            let wake_ns = self.on_time(now_ns);
            for _ in 0..self.runnable.len() {
                let Some(at) = self.runnable.pop_front() else { break };
                self.wake(at);
            }
            let timeout =
                if self.runnable.is_empty() { self.timer.arm(now_ns, wake_ns)? } else { Some(Duration::ZERO) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.on_event(event);
            }
        }
        Ok(self.finish())
    }

    fn on_event(&mut self, event: &Event) {
        let Token(at) = event.token();
        let Some(conn) = self.conns.get_mut(at) else { return };
        if conn.is_opening() {
            let opened = conn.on_opening();
            match opened {
                Ok(true) => self.say_hello(at),
                Ok(false) => return,
                Err(error) => return self.on_failed(at, &error),
            }
        } else if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.on_readable(event.is_read_closed() || event.is_error());
        }
        self.wake(at);
    }

    /// Does everything that is due, and returns when the next thing will be.
    fn on_time(&mut self, now_ns: u64) -> u64 {
        let connect_ns = self.connect_due(now_ns);
        let deadline_ns = self.check_deadlines(now_ns);
        if now_ns >= self.next_look_ns {
            self.look(now_ns);
            self.next_look_ns = now_ns + LOOK_NS;
        }
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = self.publish_due(now_ns);
        }
        connect_ns.min(deadline_ns).min(self.next_look_ns).min(self.next_tick_ns)
    }

    /// Opens the connections that are due; returns when the next one is.
    fn connect_due(&mut self, now_ns: u64) -> u64 {
        while let Some((event, at)) = self.connect_turns.peek() {
            if event >= self.spec.connections() {
                break;
            }
            let due_ns = self.connect_schedule.due_ns(event);
            if due_ns > now_ns {
                return due_ns;
            }
            self.connect_turns.advance();
            self.open(at, due_ns);
        }
        u64::MAX
    }

    /// Publishes what is due; returns when the next message is.
    fn publish_due(&mut self, now_ns: u64) -> u64 {
        let Some(plan) = self.plan else { return now_ns + LOOK_NS };
        let Some(schedule) = plan.schedule else {
            // From here on acknowledgements, or sockets that can take more, make them go on.
            for at in 0..self.publishers.len() {
                let Some(&at) = self.publishers.get(at) else { break };
                self.enqueue(at);
            }
            return u64::MAX;
        };
        while let Some((event, at)) = self.publish_turns.peek() {
            let due_ns = schedule.due_ns(event);
            if event >= plan.messages || due_ns >= plan.end_ns {
                break;
            }
            if due_ns > now_ns {
                return due_ns;
            }
            self.publish_turns.advance();
            if let Some(&at) = self.publishers.get(at) {
                self.wake(at);
            }
        }
        u64::MAX
    }

    /// Finds connections that wait for too long and pings those that have been quiet; returns when the next is due.
    fn check_deadlines(&mut self, now_ns: u64) -> u64 {
        while let Some(&Reverse((due_ns, at, deadline))) = self.deadlines.peek() {
            if due_ns > now_ns {
                return due_ns;
            }
            self.deadlines.pop();
            let Some(conn) = self.conns.get_mut(at).filter(|conn| !conn.is_closed()) else { continue };
            match deadline {
                Deadline::Open => self.open(at, due_ns),
                Deadline::Connect => {
                    let state = conn.client.state();
                    // A deadline of an earlier connection means nothing to this one.
                    if conn.connect_due_ns == due_ns && !conn.is_waiting() && state != State::Ready {
                        self.on_failed(at, &ConnError::Timeout(state));
                    }
                }
                Deadline::KeepAlive => {
                    if conn.ping_due_ns == due_ns && conn.is_open() {
                        self.ping(at, now_ns);
                    }
                }
            }
        }
        u64::MAX
    }

    /// Pings if nothing was sent for long enough.
    fn ping(&mut self, at: usize, now_ns: u64) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let quiet_ns = keep_alive_ns(&conn.client);
        let mut next_ns = conn.sent_ns.saturating_add(quiet_ns);
        if next_ns <= now_ns {
            next_ns = now_ns + quiet_ns;
            self.out.clear();
            let pinged = conn.client.ping(&mut self.out).map_err(ConnError::from);
            if let Err(error) = pinged.and_then(|()| conn.write(&self.out, now_ns)) {
                return self.on_failed(at, &error);
            }
        }
        conn.ping_due_ns = next_ns;
        self.deadlines.push(Reverse((next_ns, at, Deadline::KeepAlive)));
    }

    /// Tells the conductor how far this worker is, and looks whether the run has started.
    fn look(&mut self, now_ns: u64) {
        if self.plan.is_none()
            && let Some(start_ns) = self.shared.start_ns()
        {
            self.start(start_ns);
        }
        if let (Some(plan), Some(end_ns)) = (&mut self.plan, self.shared.end_ns()) {
            plan.end_ns = plan.end_ns.min(end_ns);
            self.tally.window.end = self.tally.window.end.min(end_ns);
        }
        let unfinished = match &self.plan {
            Some(plan) => self.publishers.iter().filter(|at| !self.is_finished(**at, plan, now_ns)).count(),
            None => self.publishers.len(),
        };
        self.shared.publish(
            self.index,
            &Progress {
                ready: self.tally.ready,
                failed: self.tally.refused + self.tally.lost,
                unfinished: unfinished as u64,
                owed: self.tally.owed,
                delivered: self.tally.total.delivered,
                away: if self.spec.returns { self.away() } else { 0 },
            },
        );
    }

    fn start(&mut self, start_ns: u64) {
        let plan = self.spec.plan(start_ns);
        if plan.publishers > 0 {
            self.tally.window = self.spec.timing.window(start_ns);
        }
        self.plan = Some(plan);
        self.next_tick_ns = start_ns;
    }

    fn is_finished(&self, at: usize, plan: &Plan, now_ns: u64) -> bool {
        self.conns.get(at).is_none_or(|conn| match &conn.client.role {
            Role::Publisher(publisher) => conn.is_closed() || publisher.is_finished(plan, now_ns),
            Role::Idle | Role::Probe { .. } | Role::Subscriber(_) => true,
        })
    }

    fn finish(mut self) -> Outcome {
        // Who is away at the end does not come back any more.
        if self.spec.returns {
            let gone = |conn: &&Conn| {
                conn.first_ready_ns.is_some() && conn.client.state() != State::Ready && !conn.is_closed()
            };
            let is_probe = |conn: &&Conn| matches!(conn.client.role, Role::Probe { .. });
            self.tally.lost += self.conns.iter().filter(gone).filter(|conn| !is_probe(conn)).count() as u64;
        }
        for conn in self.conns.iter_mut().filter(|conn| conn.is_open()) {
            self.out.clear();
            // The run is over: whether the broker still hears of it does not matter.
            if conn.client.disconnect(&mut self.out).is_ok() {
                let _ = conn.write(&self.out, 0);
            }
        }
        let (tracks, foreign) = self.verifier.into_tracks();
        let owed = self.conns.into_iter().flat_map(|conn| match conn.client.role {
            Role::Publisher(publisher) => publisher.into_owed(),
            Role::Idle | Role::Probe { .. } | Role::Subscriber(_) => Vec::new(),
        });
        let receivers_of = |topic| usize::try_from(topic).ok().and_then(|at| self.receivers.of_topic.get(at)).cloned();
        let owed = owed.map(|(topic, sequences)| Owed {
            publisher: topic,
            sequences,
            receivers: receivers_of(topic).unwrap_or_default(),
        });
        Outcome { owed: owed.collect(), tally: self.tally, tracks, foreign }
    }
}

/// Pings go out after three quarters of the time that the broker waits for.
fn keep_alive_ns(client: &Client) -> u64 {
    nanos(Duration::from_secs(client.keep_alive_s().into())) / 4 * 3
}
