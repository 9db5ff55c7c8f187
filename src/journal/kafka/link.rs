//! A connection to one node that an actor wants to have: opened again when it is lost, with pauses that grow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::connection::{ConnectError, Connection, Endpoint, Reply};
use super::options::KafkaOptions;
use super::stats::Pulse;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What reaches an actor from its links.
#[derive(Debug)]
pub enum Arrival {
    /// Opening a connection came to an end.
    Opened {
        /// Which link.
        link: u64,
        /// The connection.
        result: Result<Connection, ConnectError>,
    },
    /// A request was answered, or its connection lost.
    Answer {
        /// Which of its requests.
        request: u64,
        /// The response.
        reply: Reply,
    },
}

/// ```text
///            due             opened
///   Down ──────────► Opening ──────► Up
///    ▲ ▲               │ failed      │ lost
///    │ └───────────────┘             │
///    └───────────────────────────────┘
/// ```
#[derive(Debug)]
enum State {
    Down { retry_at: Option<Instant>, failures: u32 },
    Opening { failures: u32 },
    Up(Connection),
}

/// One wanted connection.
#[derive(Debug)]
pub struct Link {
    id: u64,
    state: State,
    pulse: Arc<Pulse>,
}

impl Link {
    /// A link that is down and may be opened at once. `id` names it in [`Arrival`].
    pub fn new(id: u64, pulse: Arc<Pulse>) -> Self {
        Self { id, state: State::Down { retry_at: None, failures: 0 }, pulse }
    }

    /// Its name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The connection if there is one. If not, and it is time, opening one begins.
    pub fn get(
        &mut self,
        now: Instant,
        endpoint: Option<&Endpoint>,
        options: &Arc<KafkaOptions>,
        queue: &mpsc::Sender<Arrival>,
    ) -> Option<&Connection> {
        if let State::Up(connection) = &self.state
            && connection.is_closed()
        {
            self.state = State::Down { retry_at: None, failures: 0 };
        }
        if let State::Down { retry_at, failures } = self.state
            && retry_at.is_none_or(|at| at <= now)
        {
            let Some(endpoint) = endpoint else {
                self.state = State::Down { retry_at: Some(now + PAUSE_MAX), failures };
                return None;
            };
            self.pulse.owe();
            self.state = State::Opening { failures };
            let (id, endpoint, options) = (self.id, endpoint.clone(), Arc::clone(options));
            let (queue, pulse) = (queue.clone(), Arc::clone(&self.pulse));
            crate::ops::tasks::spawn("kafka connect", async move {
                let result = Connection::open(&endpoint, &options, pulse).await;
                drop(queue.send(Arrival::Opened { link: id, result }).await);
            });
        }
        match &self.state {
            State::Up(connection) => Some(connection),
            State::Down { .. } | State::Opening { .. } => None,
        }
    }

    /// The attempt to open it ended.
    pub fn on_opened(&mut self, now: Instant, result: Result<Connection, ConnectError>) {
        let State::Opening { failures } = self.state else { return };
        self.state = match result {
            Ok(connection) => State::Up(connection),
            Err(error) => {
                tracing::warn!(%error, "cannot connect to Kafka");
                let pause = PAUSE_MIN.saturating_mul(1 << failures.min(8)).min(PAUSE_MAX);
                State::Down { retry_at: Some(now + pause), failures: failures.saturating_add(1) }
            }
        };
    }

    /// Kafka asked for a pause.
    pub fn hold_back(&self, throttle_ms: i32) {
        if let State::Up(connection) = &self.state {
            connection.hold_back(throttle_ms);
        }
    }

    /// A request was lost. If it was on the present connection, that is over.
    pub fn on_lost(&mut self, now: Instant) {
        if let State::Up(connection) = &self.state
            && connection.is_closed()
        {
            self.state = State::Down { retry_at: Some(now), failures: 0 };
        }
    }

    /// Gives it up for now.
    pub fn close(&mut self) {
        if let State::Up(_) = self.state {
            self.state = State::Down { retry_at: None, failures: 0 };
        }
    }

    /// Nobody needs it for the moment: its silence means nothing.
    pub fn rest(&self) {
        self.pulse.forgive();
    }

    /// Whether it is awaited.
    pub fn is_owed(&self) -> bool {
        self.pulse.is_owed()
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        match &self.state {
            State::Up(connection) => !connection.is_closed(),
            State::Down { .. } | State::Opening { .. } => false,
        }
    }

    /// When [`Link::get`] should be called again.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.state {
            State::Down { retry_at, .. } => retry_at,
            State::Opening { .. } | State::Up(_) => None,
        }
    }
}
