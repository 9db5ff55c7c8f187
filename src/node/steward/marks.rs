//! W, the node's watermark in every partition of `mqtt.sessions` where it has sessions (DESIGN §5.1, Q5).
//!
//! Its two halves are found apart: `done` comes from the fan-out, which knows what was acknowledged; `tokens` from here.
//! Both are sampled first and written when everything older than the sample is accounted for.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;

use super::Asked;
use super::core::{Core, Pending, Standing};
use super::effect::{Effect, Log};
use super::owned::{Owned, Stage};
use crate::ledger::ids::{Origin, Place};
use crate::ledger::record::{self, Watermark};
use crate::ledger::rules::Rule;
use crate::node::connections::ConnectionId;
use crate::node::fanout::WatermarkRound;
use crate::node::mailbox::Notice;

/// So long a position is on its way that does not go where the watermarks go.
const STRAYED_MS: i64 = 3_000;

#[derive(Debug, Default)]
pub(super) struct Marks {
    done: Vec<(Place, i64)>,
    tokens: Vec<(Place, i64)>,
    /// Ends of the partitions, and the tick that ended with them: every token of a later tick is behind them.
    sample: Option<(u32, Vec<(Place, i64)>)>,
    tick: u32,
    asking: bool,
    next_ask_ms: i64,
    /// What was written last, by partition of `mqtt.sessions`.
    written: BTreeMap<u32, Watermark>,
    /// A `done` that waits for the positions of sessions that no longer follow (W3).
    held: Option<Vec<(Place, i64)>>,
    /// They follow no longer, and have not written that yet.
    detaching: HashSet<ConnectionId>,
    /// Only without W4: positions that go their own way, and when they come to the log.
    strayed: VecDeque<(i64, Pending)>,
}

impl Marks {
    pub(super) fn forget(&mut self) {
        self.written.clear();
        self.held = None;
    }
}

impl Core {
    /// Before the first claim in a partition: from where on tokens of this node are to be looked for.
    pub(super) fn need_mark(&mut self, partition: u32) {
        if !self.marks.written.contains_key(&partition) {
            self.write_mark(partition);
        }
    }

    /// From where on tokens of this node may be unaccounted for.
    pub(super) fn token_mark(&self, place: Place) -> i64 {
        self.marks.tokens.iter().find(|(other, _)| *other == place).map_or(0, |(_, offset)| *offset)
    }

    /// The watermark as it was written last, to be written again.
    pub(super) fn mark_record(&self) -> (Vec<u8>, Vec<u8>) {
        let mark = Watermark { done: self.marks.done.clone(), tokens: self.marks.tokens.clone() };
        (record::watermark_key(self.identity.incarnation), record::watermark(&mark))
    }

    fn write_mark(&mut self, partition: u32) {
        let incarnation = self.identity.incarnation;
        let mark = Watermark { done: self.marks.done.clone(), tokens: self.marks.tokens.clone() };
        if self.marks.written.get(&partition) == Some(&mark) {
            return;
        }
        let value = record::watermark(&mark);
        self.append_unwatched(Log::Sessions, partition, record::watermark_key(incarnation), Some(value));
        self.marks.written.insert(partition, mark);
    }

    fn write_marks(&mut self) {
        let partitions: Vec<u32> = self.marks.written.keys().copied().collect();
        if self.standing == Standing::Acting {
            for partition in partitions {
                self.write_mark(partition);
            }
        }
    }

    // ---- done

    pub(super) fn on_watermark(&mut self, round: WatermarkRound) {
        let WatermarkRound { detached, attached, done } = round;
        // One that is gone has parted, with its position.
        let detached = detached.into_iter().filter(|connection| self.by_connection.contains_key(connection));
        self.marks.detaching.extend(detached);
        for connection in attached {
            self.marks.detaching.remove(&connection);
        }
        self.marks.held = done.or(self.marks.held.take());
        self.release_done();
    }

    /// A session's explicit position is in the queue (W3, W4), or it is gone.
    pub(super) fn detached(&mut self, connection: ConnectionId) {
        if self.marks.detaching.remove(&connection) {
            self.release_done();
        }
    }

    /// Without W4: another producer brings a position to the log, some seconds later.
    pub(super) fn stray(&mut self, position: Pending) {
        self.marks.strayed.push_back((self.now_ms + STRAYED_MS, position));
    }

    fn append_strayed(&mut self) {
        while let Some((_, position)) = self.marks.strayed.pop_front_if(|(at_ms, _)| *at_ms <= self.now_ms) {
            self.append_again(position);
        }
    }

    fn release_done(&mut self) {
        if self.marks.detaching.is_empty()
            && let Some(done) = self.marks.held.take()
        {
            self.marks.done = done;
            self.write_marks();
        }
    }

    // ---- tokens

    pub(super) fn tick_marks(&mut self) {
        if matches!(self.standing, Standing::Replaying | Standing::Over) {
            return;
        }
        self.append_strayed();
        self.accept_sample();
        if !self.marks.asking && self.marks.sample.is_none() && self.now_ms >= self.marks.next_ask_ms {
            self.marks.asking = true;
            self.marks.next_ask_ms = self.now_ms + self.limits.tokens_ms;
            let ask = self.next_ask();
            self.asks.insert(ask, Asked::Tokens);
            self.effects.push(Effect::AskEnds { ask });
        }
    }

    pub(super) fn on_token_ends(&mut self, ends: &[Origin]) {
        self.marks.asking = false;
        if ends.is_empty() {
            return;
        }
        let ended = self.marks.tick;
        self.marks.tick += 1;
        self.routes.tick().store(self.marks.tick, Ordering::Release);
        let sample = ends.iter().map(|end| (end.place, end.offset)).collect();
        self.marks.sample = Some((ended, sample));
        self.accept_sample();
    }

    /// Q5: the sample may be written once no token of its tick or before is unreleased and unrecorded.
    fn accept_sample(&mut self) {
        let Some((tick, _)) = &self.marks.sample else { return };
        let is_clear = !self.rules.holds(Rule::Q5) || self.accounts_for_tokens(*tick);
        if is_clear && let Some((_, sample)) = self.marks.sample.take() {
            self.marks.tokens = sample;
            self.write_marks();
        }
    }

    /// Whether every token of a tick or before is released or recorded; asks the sessions to record those that are not.
    fn accounts_for_tokens(&mut self, tick: u32) -> bool {
        let mut clear = !self.doubts.has_messages();
        for owned in self.owned.values() {
            if let Some(port) = &owned.port {
                if port.mailbox.oldest_token_tick() <= tick {
                    clear = false;
                    if owned.stage == Stage::Serving {
                        self.effects.push(port.tell(Notice::Tick));
                    }
                }
            } else if owned.parting.is_some() || has_tokens(owned) {
                // Until its last word is in the log, which says what became of them.
                clear = false;
            }
        }
        clear
    }
}

/// Whether it may have tokens that no record tells of yet.
fn has_tokens(owned: &Owned) -> bool {
    owned.state.as_ref().is_some_and(|state| state.inbound.high > 0 || !state.inbound.pending.is_empty())
}
