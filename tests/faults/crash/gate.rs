//! The way from nodes to Kafka, with traps: a node that sends a certain record is killed there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace::ledger::ids::Nonce;
use millrace::ledger::record::{ClientKey, Slot, key};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::cell::Point;
use crate::proxy::{client_id, read_frame};

const PRODUCE: [u8; 2] = [0, 0];
const FETCH: [u8; 2] = [0, 1];
/// What was sent before a node died goes on to Kafka.
const LINGER: Duration = Duration::from_secs(3);

/// Ends with its value.
pub struct Gate {
    pub port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    /// By the client id of the node towards Kafka.
    traps: Mutex<BTreeMap<String, Arc<Trap>>>,
}

impl Shared {
    fn trap(&self, client_id: &str) -> Option<Arc<Trap>> {
        lock(&self.traps).get(client_id).cloned()
    }
}

/// The record that a trap waits for.
pub enum Prey {
    /// A message with this text.
    Message(String),
    /// A record of `mqtt.sessions` whose key is these bytes, a nonce, and these bytes.
    State(Vec<u8>, Vec<u8>),
}

/// Kills a node when a record of it comes by.
pub struct Trap {
    prey: Prey,
    point: Point,
    kill: Box<dyn Fn() + Send + Sync>,
    sprung: AtomicBool,
    dead: watch::Sender<bool>,
    released: watch::Sender<bool>,
    landed: watch::Sender<bool>,
}

/// What one connection knows of itself.
#[derive(Default)]
struct Talk {
    fetches: BTreeSet<[u8; 4]>,
    /// The request with the prey.
    marked: Option<([u8; 4], Arc<Trap>)>,
    client_id: String,
}

impl Prey {
    /// A record of a client's session.
    pub fn of_session(client: &str, slot: Slot) -> Self {
        let (client, mark) = (ClientKey::new("", client), [0xa5; 16]);
        let whole = key(&client, Nonce(mark), slot);
        let place = whole.windows(mark.len()).position(|bytes| bytes == mark).unwrap();
        Self::State(whole[..place].to_vec(), whole[place + mark.len()..].to_vec())
    }

    /// Small batches are not compressed, so a record can be seen as it is.
    fn is_in(&self, frame: &[u8]) -> bool {
        match self {
            Self::Message(text) => frame.windows(text.len()).any(|bytes| bytes == text.as_bytes()),
            Self::State(before, after) => {
                let length = before.len() + 16 + after.len();
                frame.windows(length).any(|bytes| bytes.starts_with(before) && bytes.ends_with(after))
            }
        }
    }
}

impl Trap {
    /// Waits until the node was killed.
    ///
    /// # Errors
    /// The record does not come.
    pub fn wait_dead(&self, limit: Duration) -> Result<(), String> {
        wait(&self.dead, limit).map_err(|()| "hangs: the record of the crash point was not written".to_owned())
    }

    /// What is held goes on to Kafka.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Waits until Kafka has answered what was held.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_landed(&self, limit: Duration) -> Result<(), String> {
        wait(&self.landed, limit).map_err(|()| "hangs: Kafka did not answer what was held".to_owned())
    }

    fn spring(&self, frame: &[u8]) -> bool {
        self.prey.is_in(frame) && !self.sprung.swap(true, Ordering::AcqRel)
    }

    fn crash(&self) {
        (self.kill)();
        self.dead.send_replace(true);
    }

    /// The node must not read what it wrote.
    fn blinds(&self) -> bool {
        self.point == Point::Unread && self.sprung.load(Ordering::Acquire)
    }
}

fn wait(flag: &watch::Sender<bool>, limit: Duration) -> Result<(), ()> {
    let mut flag = flag.subscribe();
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let waited = here.block_on(async { tokio::time::timeout(limit, flag.wait_for(|is_set| *is_set)).await.is_ok() });
    if waited { Ok(()) } else { Err(()) }
}

impl Gate {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, runtime: Some(runtime) }
    }

    /// Where Kafka is.
    pub fn lead_to(&self, target: &str) {
        *lock(&self.shared.target) = Some(target.parse().unwrap());
    }

    /// From now on the next such record of the node with this client id kills it.
    pub fn set(&self, client_id: &str, prey: Prey, point: Point, kill: Box<dyn Fn() + Send + Sync>) -> Arc<Trap> {
        let flag = || watch::channel(false).0;
        let (dead, released, landed) = (flag(), flag(), flag());
        let trap = Trap { prey, point, kill, sprung: AtomicBool::new(false), dead, released, landed };
        let trap = Arc::new(trap);
        lock(&self.shared.traps).insert(client_id.to_owned(), Arc::clone(&trap));
        trap
    }

    /// A node under this client id is safe.
    pub fn clear(&self, client_id: &str) {
        lock(&self.shared.traps).remove(client_id);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((node, _)) = listener.accept().await {
        millrace::ops::tasks::spawn("gate", forward(node, Arc::clone(&shared)));
    }
}

async fn forward(node: TcpStream, shared: Arc<Shared>) {
    let Some(target) = *lock(&shared.target) else { return };
    let Ok(kafka) = TcpStream::connect(target).await else { return };
    node.set_nodelay(true).unwrap();
    kafka.set_nodelay(true).unwrap();
    let (node_reader, node_writer) = node.into_split();
    let (kafka_reader, kafka_writer) = kafka.into_split();
    let talk = Mutex::new(Talk::default());
    // Whichever way ends first ends both.
    tokio::select! {
        () = requests(node_reader, kafka_writer, &shared, &talk) => {}
        () = answers(kafka_reader, node_writer, &shared, &talk) => {}
    }
}

async fn requests(mut node: OwnedReadHalf, mut kafka: OwnedWriteHalf, shared: &Shared, talk: &Mutex<Talk>) {
    while let Some(frame) = read_frame(&mut node).await {
        let (api, correlation) = (&frame[4..6], [frame[8], frame[9], frame[10], frame[11]]);
        let client_id = String::from_utf8_lossy(client_id(&frame)).into_owned();
        let trap = shared.trap(&client_id);
        {
            let mut talk = lock(talk);
            talk.client_id = client_id;
            if api == FETCH {
                talk.fetches.insert(correlation);
            }
        }
        if let Some(trap) = trap.filter(|trap| api == PRODUCE && trap.spring(&frame)) {
            match trap.point {
                Point::Before => return trap.crash(),
                Point::Late | Point::TooLate => {
                    trap.crash();
                    lock(talk).marked = Some((correlation, Arc::clone(&trap)));
                    // The sender outlives this.
                    let _ = trap.released.subscribe().wait_for(|is_released| *is_released).await;
                }
                Point::Written | Point::Unread => lock(talk).marked = Some((correlation, trap)),
                Point::Lost | Point::Seen => {}
            }
        }
        if kafka.write_all(&frame).await.is_err() {
            return;
        }
    }
    tokio::time::sleep(LINGER).await;
}

async fn answers(mut kafka: OwnedReadHalf, mut node: OwnedWriteHalf, shared: &Shared, talk: &Mutex<Talk>) {
    while let Some(frame) = read_frame(&mut kafka).await {
        let correlation = [frame[4], frame[5], frame[6], frame[7]];
        let (is_fetch, trap, marked) = {
            let mut talk = lock(talk);
            let marked = talk.marked.take_if(|(marked, _)| *marked == correlation);
            (talk.fetches.remove(&correlation), shared.trap(&talk.client_id), marked)
        };
        if is_fetch && trap.is_some_and(|trap| trap.blinds()) {
            // Until the node is dead, which ends the other direction.
            std::future::pending::<()>().await;
        }
        let Some((_, trap)) = marked else {
            // A node that is gone needs no answer; what it sent goes on.
            let _ = node.write_all(&frame).await;
            continue;
        };
        match trap.point {
            Point::Before | Point::Lost | Point::Seen => {}
            Point::Late | Point::TooLate => {
                trap.landed.send_replace(true);
            }
            Point::Written => return trap.crash(),
            Point::Unread => {
                let _ = node.write_all(&frame).await;
                trap.crash();
            }
        }
    }
}
