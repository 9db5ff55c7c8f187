//! What a client finds that comes when everything is over: at a node that was there, and at one that starts then.

use std::sync::Arc;
use std::time::Duration;

use millrace::mqtt::decode;
use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{Packet, ProtocolVersion};
use tokio::time::{sleep, timeout};

use crate::client::wire::Wire;
use crate::cluster::Cluster;
use crate::history::{Asked, Link, Message, Name};
use crate::plan::Plan;

/// A new node serves within this time, in seconds.
const START_LIMIT_S: u64 = 60;
/// Then nothing more comes.
const SILENCE: Duration = Duration::from_secs(3);

/// The retained messages that each node has for a new subscriber to everything; `Err` says why there are none.
pub(crate) type Probed = Vec<(&'static str, Result<Vec<Message>, String>)>;

/// Asks an old node and a new one.
pub(crate) async fn probe(cluster: &Arc<Cluster>, plan: &Plan) -> Probed {
    if !plan.features.retained {
        return Vec::new();
    }
    let old = ask(cluster, 0, 0).await;
    cluster.start(plan.nodes, plan.seed);
    let new = ask(cluster, plan.nodes, 1).await;
    vec![("a node that was there", old), ("a node that started at the end", new)]
}

async fn ask(cluster: &Arc<Cluster>, node: usize, number: usize) -> Result<Vec<Message>, String> {
    for _ in 0..START_LIMIT_S {
        if let Some(stream) = cluster.connect(node) {
            return subscribe_to_all(Wire::new(stream, ProtocolVersion::V5), number).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Err(format!("it did not serve within {START_LIMIT_S} s"))
}

async fn subscribe_to_all(mut wire: Wire, number: usize) -> Result<Vec<Message>, String> {
    let asked = Asked { node: 0, clean_start: true, expiry_s: 0, will: None };
    wire.connect(Link { client: 0, connection: 0 }, &format!("probe-{number}"), 0, 0, &asked);
    wire.subscribe(1, &[("#".to_owned(), 1)]);
    if !wire.flush().await {
        return Err("it took no CONNECT".to_owned());
    }
    let mut messages = Vec::new();
    let mut is_subscribed = false;
    while let Ok(frame) = timeout(SILENCE, wire.read()).await {
        let Some(frame) = frame else { return Err("it closed the connection".to_owned()) };
        match decode::packet(&frame, Some(ProtocolVersion::V5), Sender::Server) {
            Ok(Packet::SubAck(_)) => is_subscribed = true,
            Ok(Packet::Publish(publish)) => messages.push(Message {
                name: Name::parse(publish.payload).ok_or("a payload that nobody sent")?,
                topic: publish.topic.to_owned(),
                qos: publish.delivery.qos().as_u8(),
                retain: publish.retain,
            }),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if is_subscribed { Ok(messages) } else { Err("it answered no SUBSCRIBE".to_owned()) }
}
