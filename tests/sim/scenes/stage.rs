//! What a scene is played on: orders to clients, deeds to nodes and log, and waiting.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::{MESSAGES, SESSIONS, Scene};
use crate::adversary::Adversary;
use crate::client::Status;
use crate::client::orders::{Order, Orders, Visit};
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::history::{Answer, Event};

/// Ended nodes are looked for so often.
const LOOK_MS: u64 = 10;
/// Nothing in a scene is waited for longer than this: without a rule it may never come.
const LIMIT_MS: u64 = 60_000;

pub(crate) struct Stage<'a> {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) dice: Dice,
    adversary: &'a mut Adversary,
    orders: Vec<Orders>,
    statuses: Vec<Arc<Mutex<Status>>>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        cluster: &Arc<Cluster>,
        adversary: &'a mut Adversary,
        dice: Dice,
        orders: Vec<Orders>,
        statuses: Vec<Arc<Mutex<Status>>>,
    ) -> Self {
        Self { cluster: Arc::clone(cluster), dice, adversary, orders, statuses }
    }

    /// Plays the scene, then mends everything.
    pub(crate) async fn play(mut self, scene: &Scene) {
        self.adversary.start_all();
        self.until(|stage| (0..stage.cluster.nodes() - 1).all(|node| stage.cluster.serves(node))).await;
        (scene.play)(&mut self).await;
        for node in 0..self.cluster.nodes() - 1 {
            self.cluster.slow_down(node, MESSAGES, 0);
            self.cluster.slow_down(node, SESSIONS, 0);
        }
        self.adversary.mend_all();
    }

    /// A number between `low` and `high`.
    pub(crate) fn draw(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.dice.between(low.into(), high.into())).unwrap()
    }

    // ---- time

    /// Time passes, between `low` and `high` milliseconds.
    pub(crate) async fn pause(&mut self, low: u64, high: u64) {
        let until_ms = self.cluster.now_ms() + self.dice.between(low, high);
        while self.cluster.now_ms() < until_ms {
            let left_ms = until_ms - self.cluster.now_ms();
            sleep(Duration::from_millis(left_ms.min(LOOK_MS))).await;
            self.adversary.look();
        }
    }

    /// Time passes until something is so, but not for ever; says whether it is.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&Self) -> bool) -> bool {
        let limit_ms = self.cluster.now_ms() + LIMIT_MS;
        while !is_so(self) {
            if self.cluster.now_ms() > limit_ms {
                return false;
            }
            sleep(Duration::from_millis(1)).await;
            self.adversary.look();
        }
        true
    }

    /// Waits until nothing of a client is on its way.
    pub(crate) async fn settled(&mut self, client: usize) -> bool {
        self.until(|stage| {
            let status = stage.status(client);
            stage.orders[client].is_empty() && status.is_connected && status.is_settled
        })
        .await
    }

    /// Waits until a client has sent what it was told to send.
    pub(crate) async fn obeyed(&mut self, client: usize) -> bool {
        self.until(|stage| stage.orders[client].is_empty()).await
    }

    /// Waits for an event after so many that there were before: [`Stage::events`].
    pub(crate) async fn seen(&mut self, after: usize, is_it: impl Fn(&Event) -> bool) -> bool {
        self.until(|stage| stage.cluster.history().entries.iter().skip(after).any(|entry| is_it(&entry.event))).await
    }

    /// Waits for an answer to a publish of a client, after so many events.
    pub(crate) async fn answered(&mut self, after: usize, client: usize, expected: Answer) -> bool {
        self.seen(after, |event| {
            matches!(event, Event::Answered { link, answer, .. } if link.client == client && *answer == expected)
        })
        .await
    }

    /// How many events there are.
    pub(crate) fn events(&self) -> usize {
        self.cluster.history().entries.len()
    }

    fn status(&self, client: usize) -> Status {
        *self.statuses[client].lock().unwrap()
    }

    // ---- clients

    pub(crate) fn order(&self, client: usize, order: Order) {
        self.orders[client].give(order);
    }

    /// Tells a client to connect, and waits until it was let in.
    pub(crate) async fn connect(&mut self, client: usize, visit: Visit) -> bool {
        let before = self.events();
        self.order(client, Order::Connect(visit));
        self.seen(before, |event| matches!(event, Event::Accepted { link, .. } if link.client == client)).await
    }

    /// A client that is there from the beginning on this node and subscribes to everything.
    pub(crate) async fn subscribe_all(&mut self, client: usize, node: usize) -> bool {
        self.connect(client, Visit::to(node)).await;
        self.subscribe(client, "#", 2);
        self.settled(client).await
    }

    pub(crate) fn publish(&self, client: usize, topic: &'static str, qos: u8) {
        self.order(client, Order::Publish { topic, qos, retain: false });
    }

    pub(crate) fn subscribe(&self, client: usize, filter: &'static str, qos: u8) {
        self.order(client, Order::Subscribe { filter, qos });
    }

    // ---- nodes

    /// Kills a node; another incarnation of it starts after so long.
    pub(crate) fn crash(&mut self, node: usize, down_ms: u64) {
        self.adversary.crash_for(node, down_ms);
    }

    /// A node stands still until it is resumed.
    pub(crate) fn hold(&self, node: usize) {
        self.cluster.hold(node);
    }

    pub(crate) fn resume(&self, node: usize) {
        self.cluster.resume(node);
    }

    /// Compacts the state topics.
    pub(crate) fn compact(&self) {
        self.adversary.compact_all();
    }
}
