//! One TCP connection to a Kafka node.
//!
//! Requests are pipelined and answered in order. One task owns the socket; when any of its three loops (write, read,
//! deadline) ends, the connection is over and every request on it is told so ([`Lost`]).

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

use super::link::Arrival;
use super::options::KafkaOptions;
use super::security::Stream;
use super::stats::Pulse;
use super::wire::{self, Call, Frame, code};
use crate::clock;

/// Requests that may wait to be written.
const OUTBOUND_MAX: usize = 256;
/// Frames written with one system call.
const FRAMES_PER_WRITE_MAX: usize = 16;
/// Larger answers are not from Kafka.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// What lies between forgets an idle connection later than this.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// No quota makes us wait longer than this.
const THROTTLE_MAX: Duration = Duration::from_mins(1);

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// From `host:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self { host: host.to_owned(), port: port.parse().ok()? }).filter(|endpoint| !endpoint.host.is_empty())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub String);

/// The connection ended before the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended")]
pub struct Lost {
    /// Whether any byte of the request may have left this process.
    pub maybe_sent: bool,
}

/// What comes of a request: the response behind its length.
pub type Reply = Result<Bytes, Lost>;

/// Who wants the answer.
#[derive(Debug)]
pub enum ReplyTo {
    /// One who waits for just this one.
    Once(oneshot::Sender<Reply>),
    /// An actor: the answer is one of its arrivals.
    Actor {
        /// Its queue.
        queue: mpsc::Sender<Arrival>,
        /// Which of its requests.
        request: u64,
    },
}

impl ReplyTo {
    async fn deliver(self, reply: Reply) {
        // Whoever no longer listens does not want to know.
        match self {
            Self::Once(sender) => drop(sender.send(reply)),
            Self::Actor { queue, request } => {
                drop(queue.send(Arrival::Answer { request, reply }).await);
            }
        }
    }
}

/// Why a question got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The connection ended.
    #[error("the connection ended")]
    Lost,
    /// The node cannot do it, or answered nonsense.
    #[error("{0}")]
    Protocol(String),
}

/// A handle; the connection closes when the last one is gone.
#[derive(Clone, Debug)]
pub struct Connection {
    outbound: mpsc::Sender<Outbound>,
    shared: Arc<Shared>,
    versions: Arc<Vec<(i16, i16, i16)>>,
}

#[derive(Debug)]
struct Shared {
    client_id: StrBytes,
    request_timeout: Duration,
    correlation: AtomicI32,
    expected: Mutex<VecDeque<Expected>>,
    expecting: Notify,
    muted_until: Mutex<Option<Instant>>,
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct Outbound {
    frame: Frame,
    wait: Duration,
    reply: ReplyTo,
}

/// A request whose answer is to come.
#[derive(Debug)]
struct Expected {
    correlation: i32,
    allowance: Duration,
    /// Set when it is written, and again when it becomes the next to be answered.
    deadline: Option<Instant>,
    reply: ReplyTo,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Connects, secures the connection and learns which versions the node speaks.
    ///
    /// # Errors
    /// In words.
    pub async fn open(endpoint: &Endpoint, options: &KafkaOptions, pulse: Arc<Pulse>) -> Result<Self, ConnectError> {
        let fail = |why: String| ConnectError(format!("{endpoint}: {why}"));
        let tcp = timeout(options.connect_timeout(), TcpStream::connect((endpoint.host.as_str(), endpoint.port)))
            .await
            .map_err(|_| fail("no TCP connection in time".to_owned()))?
            .map_err(|error| fail(error.to_string()))?;
        tcp.set_nodelay(true).map_err(|error| fail(error.to_string()))?;
        keep_alive(&tcp);
        let stream = options.security.wrap(tcp, &endpoint.host).await?;
        let mut connection = Self::start(stream, options, pulse);
        connection.versions = Arc::new(connection.ask_versions().await.map_err(fail)?);
        options.security.authenticate(&connection).await?;
        Ok(connection)
    }

    fn start(stream: Box<dyn Stream>, options: &KafkaOptions, pulse: Arc<Pulse>) -> Self {
        let (outbound, requests) = mpsc::channel(OUTBOUND_MAX);
        let shared = Arc::new(Shared {
            client_id: StrBytes::from_string(options.client_id.clone()),
            request_timeout: options.request_timeout(),
            correlation: AtomicI32::new(0),
            expected: Mutex::default(),
            expecting: Notify::new(),
            muted_until: Mutex::default(),
            pulse,
        });
        crate::ops::tasks::spawn("kafka connection", run(Arc::clone(&shared), stream, requests));
        let (key, spoken) = (ApiVersionsRequest::KEY, ApiVersionsRequest::SPOKEN);
        Self { outbound, shared, versions: Arc::new(vec![(key, 0, *spoken.end())]) }
    }

    async fn ask_versions(&self) -> Result<Vec<(i16, i16, i16)>, String> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("millrace"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let frame = wire::encode(&request, 3, self.next_correlation(), &self.shared.client_id)?;
        let answer = self.exchange(frame, Duration::ZERO).await.map_err(|lost| lost.to_string())?;
        let mut answer: ApiVersionsResponse = match wire::decode(answer.clone(), 3) {
            Ok(answer) => answer,
            // A node that does not know version 3 answers as version 0.
            Err(_) => wire::decode(answer, 0)?,
        };
        if answer.error_code == code::UNSUPPORTED_VERSION {
            let request = ApiVersionsRequest::default();
            let frame = wire::encode(&request, 0, self.next_correlation(), &self.shared.client_id)?;
            answer = wire::decode(self.exchange(frame, Duration::ZERO).await.map_err(|lost| lost.to_string())?, 0)?;
        }
        if answer.error_code != code::NONE {
            return Err(wire::words(answer.error_code));
        }
        Ok(answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect())
    }

    /// The version of `C` that both sides speak.
    ///
    /// # Errors
    /// There is none.
    pub fn version<C: Call>(&self) -> Result<i16, CallError> {
        self.version_of(C::KEY, &C::SPOKEN)
    }

    /// The highest version in `spoken` of the request `key` that the node speaks, too.
    ///
    /// # Errors
    /// There is none.
    pub fn version_of(&self, key: i16, spoken: &std::ops::RangeInclusive<i16>) -> Result<i16, CallError> {
        let none = || CallError::Protocol(format!("the node does not speak request {key} in versions {spoken:?}"));
        let &(_, min, max) = self.versions.iter().find(|(api, _, _)| *api == key).ok_or_else(none)?;
        let version = max.min(*spoken.end());
        if version < min.max(*spoken.start()) { Err(none()) } else { Ok(version) }
    }

    /// A number that no other request on this connection has.
    pub fn next_correlation(&self) -> i32 {
        self.shared.correlation.fetch_add(1, Ordering::Relaxed)
    }

    /// What this client calls itself.
    pub fn client_id(&self) -> &StrBytes {
        &self.shared.client_id
    }

    /// Whether it ended.
    pub fn is_closed(&self) -> bool {
        self.outbound.is_closed()
    }

    /// Sends a frame that allows Kafka to wait for `wait`; the answer goes to `reply`.
    ///
    /// # Errors
    /// Nothing was sent: the connection ended, or too many requests wait already.
    pub fn send(&self, frame: Frame, wait: Duration, reply: ReplyTo) -> Result<(), Lost> {
        self.outbound.try_send(Outbound { frame, wait, reply }).map_err(|_| Lost { maybe_sent: false })
    }

    async fn exchange(&self, frame: Frame, wait: Duration) -> Reply {
        let (sender, answer) = oneshot::channel();
        self.send(frame, wait, ReplyTo::Once(sender))?;
        answer.await.unwrap_or(Err(Lost { maybe_sent: true }))
    }

    /// Asks, in the highest common version, and waits for the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<C: Call>(&self, request: &C, wait: Duration) -> Result<C::Answer, CallError> {
        let version = self.version::<C>()?;
        let frame =
            wire::encode(request, version, self.next_correlation(), self.client_id()).map_err(CallError::Protocol)?;
        let answer = self.exchange(frame, wait).await.map_err(|_| CallError::Lost)?;
        wire::decode(answer, version).map_err(CallError::Protocol)
    }

    /// Sends a whole frame and waits for the answer.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn call_frame(&self, frame: Frame, wait: Duration) -> Reply {
        self.exchange(frame, wait).await
    }

    /// Kafka asked for a pause (KIP-219): the next request is delayed; what was answered stands.
    pub fn hold_back(&self, throttle_ms: i32) {
        let pause = Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0)).min(THROTTLE_MAX);
        if !pause.is_zero() {
            let until = clock::now() + pause;
            {
                let mut muted = lock(&self.shared.muted_until);
                *muted = Some(muted.map_or(until, |before| before.max(until)));
            }
            // Kafka does not read on meanwhile: what it has yet to answer takes longer, too.
            for request in lock(&self.shared.expected).iter_mut() {
                request.deadline = request.deadline.map(|deadline| deadline + pause);
            }
        }
    }
}

/// The option is a help, not a need: dead peers are found by deadlines.
fn keep_alive(tcp: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_AFTER / 3);
    if let Err(error) = socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "no TCP keepalive");
    }
}

async fn run(shared: Arc<Shared>, stream: Box<dyn Stream>, mut requests: mpsc::Receiver<Outbound>) {
    let (reader, writer) = tokio::io::split(stream);
    let why = tokio::select! {
        biased;
        why = write_loop(&shared, writer, &mut requests) => why,
        why = read_loop(&shared, reader) => why,
        why = deadline_loop(&shared) => why,
    };
    tracing::debug!(why, "a connection to Kafka ended");
    requests.close();
    let expected = std::mem::take(&mut *lock(&shared.expected));
    for request in expected {
        request.reply.deliver(Err(Lost { maybe_sent: request.deadline.is_some() })).await;
    }
    while let Ok(request) = requests.try_recv() {
        request.reply.deliver(Err(Lost { maybe_sent: false })).await;
    }
}

async fn write_loop(
    shared: &Shared,
    mut writer: WriteHalf<Box<dyn Stream>>,
    requests: &mut mpsc::Receiver<Outbound>,
) -> &'static str {
    let mut taken = Vec::with_capacity(FRAMES_PER_WRITE_MAX);
    loop {
        if requests.recv_many(&mut taken, FRAMES_PER_WRITE_MAX).await == 0 {
            return "nobody needs it";
        }
        let mut chunks = Chunks::default();
        {
            let mut expected = lock(&shared.expected);
            for Outbound { frame, wait, reply } in taken.drain(..) {
                let allowance = shared.request_timeout + wait;
                expected.push_back(Expected { correlation: frame.correlation, allowance, deadline: None, reply });
                chunks.0.extend(frame.chunks);
            }
        }
        while let Some(until) = muted(shared) {
            sleep_until(until.into()).await;
        }
        let now = clock::now();
        for request in lock(&shared.expected).iter_mut().filter(|request| request.deadline.is_none()) {
            request.deadline = Some(now + request.allowance);
        }
        shared.pulse.owe();
        shared.expecting.notify_one();
        if writer.write_all_buf(&mut chunks).await.is_err() {
            return "writing failed";
        }
    }
}

fn muted(shared: &Shared) -> Option<Instant> {
    let mut muted = lock(&shared.muted_until);
    *muted = muted.filter(|until| *until > clock::now());
    *muted
}

async fn read_loop(shared: &Shared, mut reader: ReadHalf<Box<dyn Stream>>) -> &'static str {
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    loop {
        match take_frame(&mut buffer) {
            Ok(Some(frame)) => {
                if let Err(why) = on_frame(shared, frame).await {
                    return why;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => return why,
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return "the node closed it",
            Ok(_) => {}
            Err(_) => return "reading failed",
        }
    }
}

/// Splits a whole frame off, without its length; makes room for it if it is not all there.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    let Some(length) = buffer.first_chunk::<4>() else {
        buffer.reserve(8 * 1024);
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| "the node sent a negative length")?;
    if length > ANSWER_BYTES_MAX {
        return Err("the node sent more than any answer may have");
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

async fn on_frame(shared: &Shared, frame: Bytes) -> Result<(), &'static str> {
    let now = clock::now();
    let request = {
        let mut expected = lock(&shared.expected);
        let request = expected.pop_front().ok_or("the node answered what was not asked")?;
        // Answers come in order: the next one's time begins now, if it was written at all.
        if let Some(next) = expected.front_mut()
            && next.deadline.is_some()
        {
            next.deadline = Some(now + next.allowance);
        }
        shared.pulse.heard(now, !expected.is_empty());
        request
    };
    if wire::correlation_of(&frame) != Some(request.correlation) {
        request.reply.deliver(Err(Lost { maybe_sent: true })).await;
        return Err("the node answered out of order");
    }
    request.reply.deliver(Ok(frame)).await;
    Ok(())
}

async fn deadline_loop(shared: &Shared) -> &'static str {
    loop {
        let next = lock(&shared.expected).front().and_then(|request| request.deadline);
        match next {
            None => shared.expecting.notified().await,
            Some(deadline) if deadline <= clock::now() => return "the node did not answer in time",
            Some(deadline) => sleep_until(deadline.into()).await,
        }
    }
}

/// Several pieces that are written with one system call.
#[derive(Debug, Default)]
struct Chunks(VecDeque<Bytes>);

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(chunk) = self.0.front_mut() {
            if chunk.len() > count {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
