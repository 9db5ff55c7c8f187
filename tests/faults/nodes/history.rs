//! What happened, in order: everything the clients sent and saw, and everything that was done to the nodes.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use millrace::clock;

/// A client of the run, by its place in the cast.
pub type ClientNo = usize;
/// A topic of the run. Each belongs to one publisher.
pub type TopicNo = usize;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since the run began.
    pub at_us: u64,
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Something that a client did or saw.
    Client(ClientNo, Act),
    /// Something that was done to nodes, Kafka or connections, or that they did by themselves.
    Deed(Deed),
}

/// What a client does or sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It sent CONNECT.
    Connecting,
    /// CONNACK came.
    Connected { session_present: bool },
    /// There was no connection, or CONNECT was refused.
    NotConnected(String),
    /// SUBACK came.
    Subscribed,
    /// The connection is over.
    Ended(End, String),
    /// It sent PUBLISH.
    Sent { number: u64, id: u16, dup: bool },
    /// PUBACK or PUBREC came: the broker answers for this message from now on.
    Acked { number: u64 },
    /// PUBCOMP came.
    Completed { number: u64 },
    /// The broker has no session for this message: it is given up without an answer, and never sent again.
    GivenUp { number: u64 },
    /// PUBLISH came. It is new unless its packet id says that this message of QoS 2 came before.
    Received { topic: TopicNo, number: u64, id: u16, dup: bool, is_new: bool },
    /// It will not come back.
    Left,
    /// What no broker may do, whatever happened.
    Odd(String),
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The client, with DISCONNECT.
    Disconnected,
    /// The client, without a word.
    Cut,
    /// The other side.
    Broker,
    /// The client, because no answer came for too long.
    Silence,
}

/// What is done to the machinery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL to a node.
    Killed(usize),
    /// A node was started.
    Started(usize),
    /// It says that it is ready.
    Ready(usize),
    /// It ended by itself.
    Exited(usize, String),
    /// SIGSTOP to a node.
    Paused(usize),
    /// SIGCONT to a node.
    Resumed(usize),
    /// A Kafka node, or all, was killed or paused.
    KafkaHurt(String),
    /// `mqtt.sessions` was deleted: from here on sessions may be lost.
    SessionsDeleted,
    /// All sessions that could be lost have been.
    SessionsBack,
    /// From here on no connection may be closed.
    StayBegins,
    /// To here.
    StayEnds,
    /// Anything else.
    Note(String),
}

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        match &self.what {
            What::Client(client, act) => write!(f, "{seconds}.{rest:06} client {client} {act:?}"),
            What::Deed(deed) => write!(f, "{seconds}.{rest:06} -- {deed:?}"),
        }
    }
}

/// The history while it is written, in memory and in a file.
pub struct Recorder {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    events: Vec<Event>,
    file: BufWriter<File>,
}

impl Recorder {
    /// An empty history with its file.
    pub fn create(path: &Path) -> Self {
        let file = BufWriter::new(File::create(path).unwrap());
        Self { began: clock::now(), state: Mutex::new(State { events: Vec::new(), file }) }
    }

    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    pub fn client(&self, client: ClientNo, act: Act) {
        self.note(What::Client(client, act));
    }

    pub fn deed(&self, deed: Deed) {
        self.note(What::Deed(deed));
    }

    /// Runs a question over all that happened.
    pub fn look<T>(&self, question: impl FnOnce(&[Event]) -> T) -> T {
        question(&self.lock().events)
    }

    pub fn events(&self) -> Vec<Event> {
        let mut state = self.lock();
        state.file.flush().unwrap();
        state.events.clone()
    }

    fn note(&self, what: What) {
        let mut state = self.lock();
        // Within the lock, so that the order of the list is the order of the times.
        let event = Event { at_us: self.now_us(), what };
        writeln!(state.file, "{event}").unwrap();
        state.events.push(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
