//! A client in a scene: it does what it is told, until the faults are over.

use std::time::Duration;

use bytes::BytesMut;
use millrace::mqtt::packet::ProtocolVersion;
use tokio::time::sleep;

use super::{Client, Habits, Order, Over, Status, Wire, flush};
use crate::history::{End, Link, Message, Name};

/// How often a client that is not connected looks for orders.
const LOOK: Duration = Duration::from_millis(5);
/// The longest time between two orders.
const PAUSE_MS: u64 = 20;

impl Habits {
    /// Everything comes from orders.
    pub(super) fn obey(&mut self) {
        *self = Self {
            version: ProtocolVersion::V5,
            expiry_s: 3600,
            keep_alive_s: 0,
            pause_ms: PAUSE_MS,
            is_lazy: false,
            receive_max: 0,
            padding: 0,
            clean_start_permille: 0,
            ..*self
        };
    }
}

impl Client {
    /// Waits until it is told where to connect; not once the scene is over.
    pub(super) async fn await_orders(&mut self) {
        let Some(orders) = self.orders.clone() else { return };
        if self.is_retired {
            // Nobody waits for it.
            self.set_status(Status { is_connected: true, is_settled: true });
            std::future::pending::<()>().await;
        }
        loop {
            if self.drains() {
                self.visit = None;
                return;
            }
            self.visit = orders.take_visit().or(self.visit.take());
            if self.visit.is_some() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// The answer to CONNECT, unless the client is told to break off before.
    pub(super) async fn read_connack(&self, wire: &mut Wire) -> Option<BytesMut> {
        let broken_off = async {
            loop {
                sleep(LOOK).await;
                if self.orders.as_ref().is_some_and(super::Orders::breaks_off) && !self.drains() {
                    return;
                }
            }
        };
        if self.orders.is_none() {
            return wire.read().await;
        }
        tokio::select! {
            biased;
            frame = wire.read() => frame,
            () = broken_off => None,
        }
    }

    /// Follows one order.
    pub(super) async fn obey(&mut self, link: Link, wire: &mut Wire) -> Result<(), Over> {
        let Some(order) = self.orders.as_ref().and_then(super::Orders::take) else { return Ok(()) };
        match order {
            Order::Connect(visit) => {
                self.visit = Some(visit);
                return Err(End::Cut);
            }
            Order::Publish { topic, qos, retain } => {
                self.messages += 1;
                let name = Name::Message { client: self.index, number: self.messages };
                self.publish(link, wire, Message { name, topic: topic.to_owned(), qos, retain });
            }
            Order::Clear { topic, qos } => {
                self.publish(link, wire, Message { name: Name::Clear, topic: topic.to_owned(), qos, retain: true });
            }
            Order::Subscribe { filter, qos } => self.subscribe_to(link, wire, vec![(filter.to_owned(), qos)]),
            Order::Leave { with_will } => {
                wire.disconnect(with_will);
                // What is left unsent nobody will read.
                let _ = flush(wire).await;
                return Err(if with_will { End::LeftWithWill } else { End::Left });
            }
            Order::Cut => return Err(End::Cut),
            Order::Retire => {
                self.is_retired = true;
                return Err(End::Cut);
            }
            Order::Sleep { ms } => {
                sleep(Duration::from_millis(ms)).await;
                return Err(End::Cut);
            }
            Order::LeaveOpen => return Err(End::LeftOpen),
            Order::Pay(pays) => (self.habits.is_lazy, self.habits.is_mute) = (!pays, !pays),
        }
        flush(wire).await
    }
}
