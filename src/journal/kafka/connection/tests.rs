//! A connection to a node that does what the test says.

use kafka_protocol::messages::InitProducerIdRequest;
use tokio::net::TcpListener;

use super::*;
use crate::journal::kafka::stats::JournalStats;

/// A node with one connection.
struct FakeNode {
    stream: TcpStream,
}

impl FakeNode {
    async fn read(&mut self) -> (i16, i32) {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.unwrap();
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        let key = i16::from_be_bytes(body[..2].try_into().unwrap());
        (key, i32::from_be_bytes(body[4..8].try_into().unwrap()))
    }

    async fn write(&mut self, correlation: i32, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).unwrap();
        self.stream.write_all(&[&length.to_be_bytes(), &correlation.to_be_bytes(), body].concat()).await.unwrap();
    }

    async fn answer_producer_id(&mut self, id: i64) {
        let (key, correlation) = self.read().await;
        assert_eq!(key, 22);
        self.write(correlation, &producer_id_body(0, id)).await;
    }
}

/// Version 1: throttle, error, producer id, epoch.
fn producer_id_body(throttle_ms: i32, id: i64) -> Vec<u8> {
    [&throttle_ms.to_be_bytes()[..], &0_i16.to_be_bytes(), &id.to_be_bytes(), &0_i16.to_be_bytes()].concat()
}

/// Version 0 of the answer: error, then one range: `InitProducerId` up to version 1.
fn versions_body() -> Vec<u8> {
    let numbers = [22_i16, 0, 1].map(i16::to_be_bytes).concat();
    [&0_i16.to_be_bytes()[..], &1_i32.to_be_bytes(), &numbers].concat()
}

async fn connect(change: impl Fn(&mut KafkaOptions)) -> (Connection, FakeNode) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut options = KafkaOptions::new(vec![]);
    options.request_timeout_ms = 300;
    change(&mut options);
    let pulse = JournalStats::new(&[]).pulse();
    let node = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut node = FakeNode { stream };
        let (key, correlation) = node.read().await;
        assert_eq!(key, 18);
        // A node that does not know version 3 answers in version 0, and is asked again in it.
        node.write(correlation, &35_i16.to_be_bytes().into_iter().chain([0; 4]).collect::<Vec<u8>>()).await;
        let (_, correlation) = node.read().await;
        node.write(correlation, &versions_body()).await;
        node
    };
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port };
    let (connection, node) = tokio::join!(Connection::open(&endpoint, &options, pulse), node);
    (connection.unwrap(), node)
}

async fn ask(connection: &Connection) -> Result<i64, CallError> {
    let request = InitProducerIdRequest::default();
    Ok(*connection.call(&request, Duration::ZERO).await?.producer_id)
}

#[tokio::test]
async fn requests_are_pipelined_and_answered_in_order() {
    let (connection, mut node) = connect(|_| {}).await;
    let serve = async {
        let first = node.read().await;
        let second = node.read().await;
        node.write(first.1, &producer_id_body(0, 1)).await;
        node.write(second.1, &producer_id_body(0, 2)).await;
    };
    let (first, second, ()) = tokio::join!(ask(&connection), ask(&connection), serve);
    assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
}

#[tokio::test]
async fn silence_closes_the_connection_and_says_that_it_was_sent() {
    let (connection, mut node) = connect(|_| {}).await;
    let (asked, _) = tokio::join!(ask(&connection), node.read());
    assert!(matches!(asked, Err(CallError::Lost)));
    assert!(connection.is_closed());
    let frame = Frame { correlation: 9, chunks: vec![Bytes::from_static(b"never")] };
    let (sender, _receiver) = oneshot::channel();
    assert_eq!(connection.send(frame, Duration::ZERO, ReplyTo::Once(sender)), Err(Lost { maybe_sent: false }));
}

#[tokio::test]
async fn an_answer_that_was_not_asked_for_ends_the_connection() {
    let (connection, mut node) = connect(|_| {}).await;
    let serve = async {
        let (_, correlation) = node.read().await;
        node.write(correlation + 1, &producer_id_body(0, 1)).await;
    };
    let (asked, ()) = tokio::join!(ask(&connection), serve);
    assert!(matches!(asked, Err(CallError::Lost)));
}

#[tokio::test]
async fn a_throttled_answer_stands_and_delays_the_next_request() {
    let (connection, mut node) = connect(|_| {}).await;
    let serve = async {
        node.answer_producer_id(1).await;
        let begun = clock::now();
        node.answer_producer_id(2).await;
        begun.elapsed()
    };
    let asks = async {
        assert_eq!(ask(&connection).await.unwrap(), 1);
        connection.hold_back(250);
        assert_eq!(ask(&connection).await.unwrap(), 2);
    };
    let ((), waited) = tokio::join!(asks, serve);
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
}

#[tokio::test]
async fn what_a_throttled_connection_never_sent_is_known_not_to_be_sent() {
    let (connection, node) = connect(|_| {}).await;
    connection.hold_back(60_000);
    let frame = Frame { correlation: 9, chunks: vec![Bytes::from_static(b"never")] };
    let (sender, receiver) = oneshot::channel();
    connection.send(frame, Duration::ZERO, ReplyTo::Once(sender)).unwrap();
    tokio::task::yield_now().await;
    drop(node);
    assert_eq!(receiver.await.unwrap(), Err(Lost { maybe_sent: false }));
}

#[tokio::test]
async fn an_answer_larger_than_any_ends_the_connection() {
    let (connection, mut node) = connect(|_| {}).await;
    let serve = async {
        node.read().await;
        node.stream.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
    };
    let (asked, ()) = tokio::join!(ask(&connection), serve);
    assert!(matches!(asked, Err(CallError::Lost)));
}

#[tokio::test]
async fn a_request_that_the_node_does_not_speak_is_refused_without_asking() {
    let (connection, _node) = connect(|_| {}).await;
    let spoken = connection.version_of(wire::PRODUCE, &wire::PRODUCE_SPOKEN);
    assert!(matches!(spoken, Err(CallError::Protocol(_))));
}

#[test]
fn endpoints_are_read_as_people_write_them() {
    let parsed = |text: &str| Endpoint::parse(text).map(|endpoint| endpoint.to_string());
    assert_eq!(parsed("kafka-1:9092"), Some("kafka-1:9092".to_owned()));
    assert_eq!(parsed(" [::1]:9092"), Some("::1:9092".to_owned()));
    assert_eq!(parsed("kafka"), None);
    assert_eq!(parsed(":9092"), None);
    assert_eq!(parsed("kafka:port"), None);
}
