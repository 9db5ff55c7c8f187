//! A way to Kafka that can be cut and held up. It forwards whole frames and knows requests from answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const PRODUCE: i16 = 0;
/// The end of a connection waits so long for Kafka to have read what was sent last.
const LINGER: Duration = Duration::from_secs(3);

/// Ends with its value.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    target: Mutex<Option<SocketAddr>>,
    /// Answers to Produce requests that are still to be swallowed, each with its connection.
    swallow: AtomicUsize,
    /// Produce requests that are still to be broken off in the middle, each with its connection.
    halve: AtomicUsize,
    /// Produce requests of this client id are held up.
    held: watch::Sender<Option<&'static str>>,
    /// So many of them were.
    held_requests: AtomicUsize,
}

impl Proxy {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            swallow: AtomicUsize::new(0),
            halve: AtomicUsize::new(0),
            held: watch::channel(None).0,
            held_requests: AtomicUsize::new(0),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, runtime: Some(runtime) }
    }

    /// Where Kafka is.
    pub fn lead_to(&self, target: &str) {
        *self.shared.target.lock().unwrap() = Some(target.parse().unwrap());
    }

    /// Cuts the connection of the next Produce request when Kafka has answered it, before the answer goes on.
    pub fn cut_before_next_answer(&self) {
        self.shared.swallow.fetch_add(1, Ordering::Relaxed);
    }

    /// Cuts the connection of the next Produce request when half of it was forwarded.
    pub fn cut_within_next_request(&self) {
        self.shared.halve.fetch_add(1, Ordering::Relaxed);
    }

    /// Cuts that are still to come.
    pub fn cuts_left(&self) -> usize {
        self.shared.swallow.load(Ordering::Relaxed) + self.shared.halve.load(Ordering::Relaxed)
    }

    /// From now on Produce requests of this client id are held up, also when the client has given them up.
    pub fn hold(&self, client_id: &'static str) {
        self.shared.held_requests.store(0, Ordering::Relaxed);
        self.shared.held.send_replace(Some(client_id));
    }

    /// Held requests go on to Kafka.
    pub fn release(&self) {
        self.shared.held.send_replace(None);
    }

    /// Requests held up since [`Proxy::hold`].
    pub fn held_requests(&self) -> usize {
        self.shared.held_requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        millrace::ops::tasks::spawn("proxy", forward(client, Arc::clone(&shared)));
    }
}

async fn forward(client: TcpStream, shared: Arc<Shared>) {
    let Some(target) = *shared.target.lock().unwrap() else { return };
    let Ok(kafka) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).unwrap();
    kafka.set_nodelay(true).unwrap();
    let (client_reader, client_writer) = client.into_split();
    let (kafka_reader, kafka_writer) = kafka.into_split();
    let produces = Mutex::new(BTreeSet::new());
    // Whichever way ends first ends both.
    tokio::select! {
        () = requests(client_reader, kafka_writer, &shared, &produces) => {}
        () = answers(kafka_reader, client_writer, &shared, &produces) => {}
    }
}

async fn requests(
    mut client: OwnedReadHalf,
    mut kafka: OwnedWriteHalf,
    shared: &Shared,
    produces: &Mutex<BTreeSet<[u8; 4]>>,
) {
    while let Some(frame) = read_frame(&mut client).await {
        if is_produce(&frame) {
            if let Some(correlation) = frame.get(8..12).and_then(|bytes| bytes.try_into().ok()) {
                produces.lock().unwrap().insert(correlation);
            }
            if take_one(&shared.halve) {
                // It is cut all the same.
                let _ = kafka.write_all(&frame[..frame.len() / 2]).await;
                return;
            }
            hold_up(&frame, shared).await;
        }
        if kafka.write_all(&frame).await.is_err() {
            return;
        }
    }
    tokio::time::sleep(LINGER).await;
}

async fn hold_up(frame: &[u8], shared: &Shared) {
    let mut held = shared.held.subscribe();
    let is_held = |held: Option<&'static str>| held.is_some_and(|client| client_id(frame) == client.as_bytes());
    if is_held(*held.borrow()) {
        shared.held_requests.fetch_add(1, Ordering::Relaxed);
    }
    // The sender outlives this.
    let _ = held.wait_for(|held| !is_held(*held)).await;
}

async fn answers(
    mut kafka: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    shared: &Shared,
    produces: &Mutex<BTreeSet<[u8; 4]>>,
) {
    while let Some(frame) = read_frame(&mut kafka).await {
        let correlation: Option<[u8; 4]> = frame.get(4..8).and_then(|bytes| bytes.try_into().ok());
        let is_produce = correlation.is_some_and(|correlation| produces.lock().unwrap().remove(&correlation));
        if is_produce && take_one(&shared.swallow) {
            return;
        }
        // A client that is gone needs no answer; what it sent goes on.
        let _ = client.write_all(&frame).await;
    }
}

/// A frame with its length.
pub async fn read_frame(stream: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut frame = length.to_vec();
    frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
    stream.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

fn is_produce(frame: &[u8]) -> bool {
    frame.get(4..6) == Some(&PRODUCE.to_be_bytes()[..])
}

/// After the length come api key, version and correlation id.
pub fn client_id(frame: &[u8]) -> &[u8] {
    let length = frame.get(12..14).map_or(0, |bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
    frame.get(14..14 + length).unwrap_or_default()
}

fn take_one(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}
