//! What happens in a cell.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, Offset};
use millrace::message::headers;
use millrace::mqtt::packet::ProtocolVersion;

use super::cell::{Cell, Point, Step};
use super::client::{Client, PATIENCE, Seen};
use super::gate::{Gate, Prey, Trap};
use crate::ledger::Ledger;
use crate::load::partition;
use crate::nodes::fleet::Fleet;

const READ_BYTES: usize = 4 << 20;
/// The packet id that every cell is about.
const ID: u16 = 1;

/// Where a cell is played: its own dying node, its own names.
pub struct Ground {
    fleet: Arc<Fleet>,
    gate: Arc<Gate>,
    dying: usize,
    name: String,
}

/// What must be in Kafka afterwards: topics and their messages, in order.
pub struct Played(BTreeMap<String, Vec<String>>);

impl Played {
    /// Compares it with Kafka.
    ///
    /// # Errors
    /// They differ.
    pub fn judge(self, log: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
        for (topic, wanted) in self.0 {
            let found = log.get(&topic).cloned().unwrap_or_default();
            if found != wanted {
                return Err(format!("in Kafka {topic} has {found:?} instead of {wanted:?}"));
            }
        }
        Ok(())
    }
}

impl Ground {
    pub fn new(fleet: &Arc<Fleet>, gate: &Arc<Gate>, dying: usize, name: String) -> Self {
        Self { fleet: Arc::clone(fleet), gate: Arc::clone(gate), dying, name }
    }

    fn dying(&self) -> SocketAddr {
        self.fleet.nodes[self.dying].mqtt
    }

    /// Those that live on.
    fn living(&self) -> [SocketAddr; 2] {
        [self.fleet.nodes[0].mqtt, self.fleet.nodes[1].mqtt]
    }

    fn client(&self) -> String {
        format!("client-{}", self.name)
    }

    fn into(&self) -> String {
        format!("crash/{}/in", self.name)
    }

    fn out(&self) -> String {
        format!("crash/{}/out", self.name)
    }

    /// A text that no other message has.
    fn text(&self, what: &str) -> String {
        format!("<{} {what}>", self.name)
    }

    fn kill(&self) {
        self.fleet.kill(self.dying);
    }

    /// The node dies at its next record of this kind, unless it is to die after its answer.
    fn set_trap(&self, cell: Cell, text: &str) -> Option<Arc<Trap>> {
        if matches!(cell.point, Point::Lost | Point::Seen) {
            return None;
        }
        let prey = match cell.step.slot() {
            Some(slot) => Prey::of_session(&self.client(), slot),
            None => Prey::Message(text.to_owned()),
        };
        let (fleet, dying) = (Arc::clone(&self.fleet), self.dying);
        Some(self.gate.set(&self.client_id(), prey, cell.point, Box::new(move || fleet.kill(dying))))
    }

    /// Of the dying node, towards Kafka.
    fn client_id(&self) -> String {
        format!("millrace-n{}", self.dying)
    }

    /// What this node had been told of its sessions is in the log when this returns: it writes in order.
    fn write_down(&self, at: SocketAddr) -> Result<(), String> {
        // Its end may not be in the log yet when this is done at another node.
        let mut witness = Client::lasting(&format!("witness-{}-{}", self.name, at.port()), ProtocolVersion::V5);
        witness.come(at)?;
        witness.subscribe("witness")?;
        witness.leave(true)
    }

    /// Publishes to the client, to the end of the exchange.
    fn publish_out(&self, text: &str) -> Result<(), String> {
        let mut publisher = Client::clean(&format!("publisher-{}", self.name), ProtocolVersion::V5);
        publisher.come(self.living()[0])?;
        publisher.publish(ID, &self.out(), text)?;
        publisher.serve(self.living()[0], 0)?;
        publisher.leave(true)
    }
}

/// Plays a cell to its end.
///
/// # Errors
/// What a client saw that must not be.
pub fn play(cell: Cell, ground: &Ground) -> Result<Played, String> {
    let [home, other] = ground.living();
    let mut watcher = Client::clean(&format!("watcher-{}", ground.name), ProtocolVersion::V5);
    watcher.come(home)?;
    watcher.subscribe(&ground.into())?;
    let mut act = Act { cell, ground, client: Client::lasting(&ground.client(), cell.version()), trap: None };
    let (mut sent_in, mut sent_out) = act.first_half()?;
    let Act { mut client, trap, .. } = act;

    let mut at = client.go_on(ground.living(), cell.way)?;
    if let Some(trap) = trap.as_ref().filter(|_| cell.point == Point::Late) {
        trap.release();
    }
    client.serve(at, sent_out.len())?;
    if let Some(trap) = trap.as_ref().filter(|_| cell.point == Point::TooLate) {
        trap.release();
    }
    if let Some(trap) = trap.as_ref().filter(|_| matches!(cell.point, Point::Late | Point::TooLate)) {
        trap.wait_landed(PATIENCE)?;
    }
    ground.gate.clear(&ground.client_id());
    // The packet id is free, and the window open, in both directions.
    for what in ["reused", "reused again"] {
        let (text, probe) = (ground.text(what), ground.text(&format!("probe, {what}")));
        client.publish(ID, &ground.into(), &text)?;
        client.serve(at, sent_out.len())?;
        sent_in.push(text);
        ground.publish_out(&probe)?;
        sent_out.push(probe);
        client.serve(at, sent_out.len())?;
        client.leave(false)?;
        // The next node would inherit what the last set says is over, PUBREL again, if its claim came before that set.
        ground.write_down(at)?;
        at = if at == home { other } else { home };
        client.come_back(at, false)?;
        client.expect_nothing()?;
    }
    client.leave(true)?;
    if client.got != sent_out {
        return Err(format!("the client got {:?} instead of {sent_out:?}", client.got));
    }
    watcher.serve(home, sent_in.len())?;
    watcher.expect_nothing()?;
    if watcher.got != sent_in {
        return Err(format!("the subscriber got {:?} instead of {sent_in:?}", watcher.got));
    }
    Ok(Played([(ground.into(), sent_in), (ground.out(), sent_out)].into()))
}

struct Act<'a> {
    cell: Cell,
    ground: &'a Ground,
    client: Client,
    trap: Option<Arc<Trap>>,
}

/// Messages that were sent: in, and out.
type Sent = (Vec<String>, Vec<String>);

impl Act<'_> {
    /// Up to the death of the node.
    fn first_half(&mut self) -> Result<Sent, String> {
        match self.cell.step {
            Step::Message => self.publish(Vec::new()),
            Step::MessageAgain => {
                let old = self.ground.text("old");
                self.client.come(self.ground.dying())?;
                self.client.subscribe(&self.ground.out())?;
                self.client.publish(ID, &self.ground.into(), &old)?;
                self.client.serve(self.ground.dying(), 0)?;
                self.publish(vec![old])
            }
            Step::Release => self.release(),
            Step::Delivery => self.deliver(),
            Step::Receipt => self.receive(),
            Step::Completion => self.complete(),
            Step::Claim | Step::Set => self.take_over(),
            Step::Farewell | Step::LastWord => self.farewell(),
        }
    }

    fn come(&mut self) -> Result<(), String> {
        self.client.come(self.ground.dying())?;
        self.client.subscribe(&self.ground.out())
    }

    fn set_trap(&mut self, text: &str) {
        self.trap = self.ground.set_trap(self.cell, text);
    }

    /// The node dies: in the trap, or now that its answer is there.
    fn die(&mut self, answer: Option<Seen>) -> Result<(), String> {
        if let Some(trap) = &self.trap {
            return trap.wait_dead(PATIENCE);
        }
        match answer {
            Some(answer) if self.cell.point == Point::Seen => self.client.expect(answer)?,
            Some(_) => self.client.miss()?,
            None => {}
        }
        self.ground.kill();
        Ok(())
    }

    fn publish(&mut self, mut sent_in: Vec<String>) -> Result<Sent, String> {
        if sent_in.is_empty() {
            self.come()?;
        }
        let text = self.ground.text("new");
        self.set_trap(&text);
        self.client.publish(ID, &self.ground.into(), &text)?;
        self.die(Some(Seen::PubRec(ID)))?;
        sent_in.push(text);
        Ok((sent_in, Vec::new()))
    }

    fn release(&mut self) -> Result<Sent, String> {
        self.come()?;
        let text = self.ground.text("new");
        self.client.publish(ID, &self.ground.into(), &text)?;
        self.client.expect(Seen::PubRec(ID))?;
        self.set_trap(&text);
        self.client.release(ID)?;
        self.die(Some(Seen::PubComp(ID)))?;
        Ok((vec![text], Vec::new()))
    }

    fn deliver(&mut self) -> Result<Sent, String> {
        self.come()?;
        let text = self.ground.text("new");
        self.set_trap(&text);
        self.ground.publish_out(&text)?;
        match self.cell.point {
            Point::Lost => self.client.miss()?,
            Point::Seen => drop(self.client.expect_publish()?),
            Point::Before | Point::Late | Point::TooLate | Point::Written | Point::Unread => {}
        }
        self.die(None)?;
        Ok((Vec::new(), vec![text]))
    }

    fn receive(&mut self) -> Result<Sent, String> {
        self.come()?;
        let text = self.ground.text("new");
        self.ground.publish_out(&text)?;
        let id = self.client.expect_publish()?;
        self.set_trap(&text);
        self.client.receive(id)?;
        self.die(Some(Seen::PubRel(id)))?;
        Ok((Vec::new(), vec![text]))
    }

    fn complete(&mut self) -> Result<Sent, String> {
        self.come()?;
        let (text, next) = (self.ground.text("new"), self.ground.text("next"));
        self.ground.publish_out(&text)?;
        let id = self.client.expect_publish()?;
        self.client.receive(id)?;
        self.client.expect(Seen::PubRel(id))?;
        self.set_trap(&text);
        self.client.complete(id)?;
        self.ground.publish_out(&next)?;
        self.die(None)?;
        Ok((Vec::new(), vec![text, next]))
    }

    /// A publish whose PUBREC came and a message without PUBREC are open when the client leaves a node that lives.
    fn take_over(&mut self) -> Result<Sent, String> {
        let sent = self.open_both(self.ground.living()[0])?;
        self.client.break_off();
        self.set_trap("");
        self.client.ask(self.ground.dying())?;
        if self.trap.is_none() && self.cell.point == Point::Seen {
            self.client.be_accepted(true)?;
            self.ground.kill();
        } else {
            self.die(Some(Seen::Pong))?;
        }
        Ok(sent)
    }

    fn farewell(&mut self) -> Result<Sent, String> {
        let sent = self.open_both(self.ground.dying())?;
        self.set_trap("");
        self.client.say_farewell()?;
        self.die(None)?;
        Ok(sent)
    }

    fn open_both(&mut self, at: SocketAddr) -> Result<Sent, String> {
        let (into, out) = (self.ground.text("in"), self.ground.text("out"));
        self.client.come(at)?;
        self.client.subscribe(&self.ground.out())?;
        self.client.publish(ID, &self.ground.into(), &into)?;
        self.client.expect(Seen::PubRec(ID))?;
        self.ground.publish_out(&out)?;
        self.client.expect_publish()?;
        // PUBREC may not have come: it is in doubt at the next node.
        let second = self.ground.text("second");
        self.client.publish(ID + 1, &self.ground.into(), &second)?;
        self.client.miss()?;
        Ok((vec![into, second], vec![out]))
    }
}

/// All messages in Kafka by topic, read by a journal that has no part in the run, uncommitted ones, too.
pub async fn read_log(bootstrap: &[String], topic: &str, partitions: u32) -> BTreeMap<String, Vec<String>> {
    let sink = Arc::new(Ledger::default());
    let options = KafkaOptions::new(bootstrap.to_vec());
    let journal = KafkaJournal::open(options, vec![topic.to_owned()], sink).await.unwrap();
    let mut log: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..partitions {
        let mut next = Offset(0);
        loop {
            let answer = journal.read(partition(number), next, READ_BYTES, Isolation::ReadUncommitted).await.unwrap();
            for record in answer.batches.iter().flat_map(|batch| batch.iter()) {
                if record.headers().any(|header| header.name == headers::FENCE) {
                    continue;
                }
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                log.entry(text(record.key)).or_default().push(text(record.value()));
            }
            if answer.next >= answer.ends.high_watermark {
                break;
            }
            next = answer.next;
        }
    }
    log
}
