//! Connections by the thousand with client ids that nobody has seen before and nobody will see again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use millrace::mqtt::packet::{Connect, ConnectProperties, Packet, ProtocolVersion};
use millrace::mqtt::{ReasonCode, decode, encode, head};
use millrace::ops::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

const PER_SECOND: u32 = 1000;
const TICK: Duration = Duration::from_millis(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Default)]
pub struct Storm {
    pub accepted: AtomicUsize,
    pub refused: AtomicUsize,
    pub failed: AtomicUsize,
}

/// Connects for so long, a thousand a second, whatever the broker says to it. Three in four sessions are clean.
pub async fn blow(address: SocketAddr, seed: u64, duration: Duration) -> Arc<Storm> {
    let storm = Arc::new(Storm::default());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = (PER_SECOND / 1000) * u32::try_from(duration.as_millis()).unwrap();
    let per_tick = PER_SECOND * u32::try_from(TICK.as_millis()).unwrap() / 1000;
    let mut tasks_of_storm = Vec::new();
    for number in 0..count {
        if number % per_tick == 0 {
            ticks.tick().await;
        }
        let storm = Arc::clone(&storm);
        tasks_of_storm.push(tasks::spawn("storm", async move {
            let counter = match timeout(ANSWER_LIMIT, connect(address, seed, number)).await {
                Ok(Ok(true)) => &storm.accepted,
                Ok(Ok(false)) => &storm.refused,
                Ok(Err(_)) | Err(_) => &storm.failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }));
    }
    for task in tasks_of_storm {
        let _ = task.await;
    }
    storm
}

async fn connect(address: SocketAddr, seed: u64, number: u32) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let client_id = format!("storm-{:016x}", seed.wrapping_add(u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let lasts = number.is_multiple_of(4);
    let properties = ConnectProperties { session_expiry_s: lasts.then_some(5), ..ConnectProperties::default() };
    let packet = Packet::Connect(Box::new(Connect {
        version: ProtocolVersion::V5,
        clean_start: !lasts,
        keep_alive_s: 0,
        client_id: &client_id,
        will: None,
        username: None,
        password: None,
        properties,
    }));
    let mut bytes = BytesMut::new();
    encode::packet(&packet, ProtocolVersion::V5, usize::MAX, &mut bytes).unwrap();
    stream.write_all(&bytes).await?;
    bytes.clear();
    loop {
        let head = head::frame_head(&bytes, Some(ProtocolVersion::V5), head::Sender::Server, usize::MAX);
        let head = head.map_err(|error| std::io::Error::other(error.to_string()))?;
        if let Some(length) = head.map(|head| head.frame_bytes()).filter(|length| *length <= bytes.len()) {
            let packet = decode::packet(&bytes[..length], Some(ProtocolVersion::V5), head::Sender::Server);
            return Ok(matches!(packet, Ok(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
