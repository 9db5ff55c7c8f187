//! Look-ups of tokens (Q2, V4): one look through a partition for all who wait for it.

use super::core::Core;
use super::effect::Effect;
use crate::journal::Partition;
use crate::ledger::ids::{Nonce, Origin, Place, Token};
use crate::ledger::state::Unresolved;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Notice;

/// Looks under way at once.
const SCANS_MAX: usize = 2;

/// One look through a partition.
#[derive(Debug)]
pub(super) struct Scanning {
    partition: Partition,
    from: i64,
    nonces: Vec<Nonce>,
    askers: Vec<Asker>,
    running: bool,
}

#[derive(Debug)]
enum Asker {
    /// The keeper of a will: the key of its session.
    Will(u64),
    /// A connection that is gone, some of whose tokens have an unknown fate.
    Own(u64),
    /// A session that holds an ambiguous publish.
    Session { connection: ConnectionId, sequence: u64, place: Place, nonces: Vec<Nonce> },
}

impl Scanning {
    /// The only session that waits for it.
    pub(super) fn owner(&self) -> Option<u64> {
        match self.askers.as_slice() {
            [Asker::Will(key)] if !self.running => Some(*key),
            _ => None,
        }
    }
}

impl Core {
    pub(super) fn on_look_up(
        &mut self,
        connection: ConnectionId,
        sequence: u64,
        topic: &str,
        unresolved: Vec<Unresolved>,
    ) {
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let Some(owned) = self.owned.get(&key) else { return };
        let Some((partition, place)) = self.routes.of_topic(topic) else {
            // The kafka topic is gone, and its messages with it.
            if let Some(port) = &owned.port {
                let effect = port.tell(Notice::LookedUp { sequence, place: Place::default(), found: Vec::new() });
                self.effects.push(effect);
            }
            return;
        };
        let ledger = self.ledgers.get(owned.partition as usize);
        let from_of = |unresolved: &Unresolved| {
            let mark = ledger.and_then(|ledger| ledger.watermark(unresolved.incarnation));
            let at = mark.and_then(|mark| mark.tokens.iter().find(|(other, _)| *other == place).map(|(_, at)| *at));
            at.unwrap_or(0)
        };
        let from = unresolved.iter().map(from_of).min().unwrap_or(0);
        let nonces: Vec<Nonce> = unresolved.into_iter().map(|unresolved| unresolved.nonce).collect();
        tracing::trace!(nonce = ?owned.nonce, ?nonces, from, topic, "looking for tokens");
        let asker = Asker::Session { connection, sequence, place, nonces: nonces.clone() };
        self.scan(partition, from, nonces, asker);
    }

    pub(super) fn scan_for_will(&mut self, key: u64, from: Origin, nonce: Nonce) -> u64 {
        let Some(partition) = self.routes.partition_of(from.place) else {
            // The kafka topic is gone, and the will with it.
            return 0;
        };
        self.scan(partition, from.offset, vec![nonce], Asker::Will(key))
    }

    /// From the own watermark on: it has not passed what is in doubt.
    pub(super) fn scan_for_own(&mut self, key: u64, partition: Partition, nonce: Nonce) {
        let place = self.routes.place_of(partition);
        let from = place.map_or(0, |place| self.token_mark(place));
        self.scan(partition, from, vec![nonce], Asker::Own(key));
    }

    fn scan(&mut self, partition: Partition, from: i64, nonces: Vec<Nonce>, asker: Asker) -> u64 {
        let open = self.scans.iter_mut().find(|(_, scanning)| !scanning.running && scanning.partition == partition);
        if let Some((id, scanning)) = open {
            scanning.from = scanning.from.min(from);
            scanning.nonces.extend(nonces);
            scanning.askers.push(asker);
            return *id;
        }
        let id = self.next_ask();
        self.scans.insert(id, Scanning { partition, from, nonces, askers: vec![asker], running: false });
        self.start_scans();
        id
    }

    fn start_scans(&mut self) {
        let running = self.scans.values().filter(|scanning| scanning.running).count();
        let waiting = self.scans.iter_mut().filter(|(_, scanning)| !scanning.running);
        for (id, scanning) in waiting.take(SCANS_MAX.saturating_sub(running)) {
            scanning.running = true;
            self.effects.push(Effect::Scan {
                scan: *id,
                partition: scanning.partition,
                from: scanning.from,
                nonces: scanning.nonces.clone(),
            });
        }
    }

    pub(super) fn on_scanned(&mut self, scan: u64, found: &[Token]) {
        let Some(scanning) = self.scans.remove(&scan) else { return };
        for asker in scanning.askers {
            match asker {
                Asker::Will(key) => self.on_will_scanned(key, found),
                Asker::Own(key) => self.on_own_scanned(key, found),
                Asker::Session { connection, sequence, place, nonces } => {
                    let Some(owned) = self.by_connection.get(&connection).and_then(|key| self.owned.get(key)) else {
                        continue;
                    };
                    let found = found.iter().filter(|token| nonces.contains(&token.nonce) && token.packet_id != 0);
                    let found: Vec<Token> = found.copied().collect();
                    tracing::trace!(nonce = ?owned.nonce, ?place, ?found, "looked for tokens");
                    let notice = Notice::LookedUp { sequence, place, found };
                    if let Some(port) = &owned.port {
                        let effect = port.tell(notice);
                        self.effects.push(effect);
                    }
                }
            }
        }
        self.start_scans();
    }
}
