//! The metrics and health port: `/metrics`, `/livez`, `/readyz`, and nothing else. No access control: keep it private.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::Metrics;
use super::shutdown::Shutdown;

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// Time since Kafka last answered; `None` before the first answer.
type KafkaSilence = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Whether this node wants new clients: `starting → ready → draining`, and not while Kafka is silent for too long.
pub struct Readiness {
    state: AtomicU8,
    kafka_grace: Duration,
    kafka_silence: OnceLock<KafkaSilence>,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").field("check", &self.check()).finish_non_exhaustive()
    }
}

impl Readiness {
    /// Starting; Kafka may be silent for `kafka_grace`.
    pub fn new(kafka_grace: Duration) -> Self {
        Self { state: AtomicU8::new(STARTING), kafka_grace, kafka_silence: OnceLock::new() }
    }

    /// Where to ask how long Kafka has been silent; the first call wins. Without it Kafka is not looked at.
    pub fn watch_kafka(&self, silence: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
        // A second watcher is a second journal, which no process has.
        let _ = self.kafka_silence.set(Box::new(silence));
    }

    /// From now on clients are welcome. A node that is draining stays so.
    pub fn set_ready(&self) {
        // Failing means that the node is ready or draining already.
        let _ = self.state.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From now on clients should go elsewhere, for good.
    pub fn set_draining(&self) {
        self.state.store(DRAINING, Ordering::Release);
    }

    /// Whether clients are welcome now.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn check(&self) -> Result<(), String> {
        match self.state.load(Ordering::Acquire) {
            STARTING => return Err("starting".to_owned()),
            READY => {}
            _ => return Err("draining: this node is leaving".to_owned()),
        }
        match self.kafka_silence.get().map(|silence| silence()) {
            Some(None) => Err("Kafka has not answered yet".to_owned()),
            Some(Some(silence)) if silence > self.kafka_grace => {
                Err(format!("Kafka has not answered for {} s", silence.as_secs()))
            }
            None | Some(Some(_)) => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

/// Answers requests on `listener` until `shutdown` is stopped: while draining, `/readyz` must still say so.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    shutdown: Shutdown,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .fallback(not_found)
        .with_state(Shared { metrics, readiness });
    let server = axum::serve(listener, routes);
    tokio::select! {
        biased;
        () = shutdown.stopped() => Ok(()),
        result = server => result,
    }
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.readiness.check() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::ops::tasks;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_port_answers_until_it_is_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::new(Duration::from_secs(30)));
        let shutdown = Shutdown::new();
        let metrics = Arc::new(Metrics::new("n1").unwrap());
        let server = tasks::spawn("admin", serve(listener, metrics, readiness.clone(), shutdown.clone()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        readiness.set_ready();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        shutdown.drain();
        readiness.set_draining();
        assert!(get(address, "/readyz").await.ends_with("draining: this node is leaving\n"));
        assert!(get(address, "/metrics").await.contains("millrace_connections_open 0"));
        assert!(get(address, "/else").await.starts_with("HTTP/1.1 404"));
        shutdown.stop();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn readiness_follows_kafka_only_after_its_grace() {
        let readiness = Readiness::new(Duration::from_secs(30));
        let away = Arc::new(AtomicBool::new(false));
        let asked = away.clone();
        readiness.watch_kafka(move || Some(Duration::from_secs(if asked.load(Ordering::Relaxed) { 31 } else { 29 })));
        assert_eq!(readiness.check(), Err("starting".to_owned()));
        readiness.set_ready();
        assert_eq!(readiness.check(), Ok(()));
        away.store(true, Ordering::Relaxed);
        assert_eq!(readiness.check(), Err("Kafka has not answered for 31 s".to_owned()));
        away.store(false, Ordering::Relaxed);
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn a_draining_node_never_becomes_ready_again() {
        let readiness = Readiness::new(Duration::ZERO);
        readiness.set_draining();
        readiness.set_ready();
        assert!(readiness.check().is_err());
    }
}
