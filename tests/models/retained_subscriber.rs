//! Retained messages, scheme Y, seen by one subscriber on one node (R5). One topic (key).
//!
//! ```text
//! State      message log M; retained log R (records and the mark retained_done, in ONE partition); how far the
//!            subscriber's node has read M and R; its ledger (highest src, R2); the subscription: start offset, what it was
//!            sent, is its window open.
//! Messages   a string: R = payload to retain, N = not retained, C = empty payload with retain (clears).
//! Adversary  messages and records land in any order `retained` allows: a record of src o any time after message o,
//!            repeated and stale ones too; mark x only after a record of src >= the newest retain-flagged message up to x;
//!            the node reads M and R at any pace, independently; the client subscribes at any time.
//! Rules      R5a start = the next offset the node will read from M; live messages from there on are sent as they are read
//!            R5b the snapshot is the ledger's record, but only if src < start (a higher one comes live) and it is not a
//!                clear
//!            R5c late: while the window is open, a record that raises the ledger and has src < start is sent too, unless
//!                a message of that topic with a higher offset was sent already (retained or not)
//!            R5d a late clear is sent (empty payload) only if an older payload of that topic was sent
//!            R5e the window closes when the node has read, in R itself, marks retained_done >= start of every node (of a
//!                dead node: the keeper's `duty done`); the mark is a record in the same partition as the records it covers
//! Property   ordered  the offsets sent for a topic rise strictly: nothing twice, nothing older after something newer
//!            newest   at rest the last thing sent is the newest retain-flagged message or something newer; nothing may be
//!                     sent only if that message is a clear; a subscriber that was sent an older payload is sent the clear
//! Must pass  good
//! Must fail  no_late (R5c missing), snapshot_unfiltered, late_unchecked, late_clear_dropped, mark_in_other_topic
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::{List, Set};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    NoLate,
    SnapshotUnfiltered,
    LateUnchecked,
    LateClearDropped,
    MarkInOtherTopic,
}
use Variant::{Good, LateClearDropped, LateUnchecked, MarkInOtherTopic, NoLate, SnapshotUnfiltered};

struct Subscriber {
    variant: Variant,
    messages: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Record {
    Src(u8),
    Mark(u8),
}

impl Default for Record {
    fn default() -> Self {
        Record::Src(0)
    }
}

/// Offsets count from 1 on; 0 is none.
#[derive(Clone, Copy, Hash)]
struct Subscription {
    start: u8,
    /// What it was sent last.
    last: u8,
    /// Late records are still sent.
    window: bool,
    /// Something was sent twice, or after something newer.
    wrong: bool,
}

impl Subscription {
    fn sent(self, offset: u8) -> Self {
        Self { last: offset, wrong: self.wrong || offset <= self.last, ..self }
    }
}

#[derive(Clone, Copy, Hash)]
struct State {
    /// Messages in M.
    length: u8,
    /// Messages whose retained record landed.
    written: Set,
    /// The highest src in R.
    top: u8,
    /// The last mark in R.
    marked: u8,
    /// Records of R that the node did not read yet.
    unread: List<Record, 8>,
    /// How far the node has read M.
    read: u8,
    /// The node's ledger.
    known: u8,
    subscription: Option<Subscription>,
    /// Repeated records left.
    spare: u8,
}

impl Model for Subscriber {
    type State = State;

    fn initial(&self) -> State {
        State {
            length: 0,
            written: Set::default(),
            top: 0,
            marked: 0,
            unread: List::default(),
            read: 0,
            known: 0,
            subscription: None,
            spare: 1,
        }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        self.landing(state, out);
        if state.read < state.length {
            let read = state.read + 1;
            let subscription = state.subscription.map(|subscription| subscription.sent(read)); // R5a
            out.will(State { read, subscription, ..*state }, || format!("node reads message {read}"));
        }
        self.reading(state, out);
        if let Some(subscription) = state.subscription {
            let marked = state.marked >= subscription.start - 1;
            if self.variant == MarkInOtherTopic && subscription.window && marked {
                let subscription = Some(Subscription { window: false, ..subscription });
                out.will(State { subscription, ..*state }, || "node reads the mark in the other topic".to_owned());
            }
        } else {
            let (start, known) = (state.read + 1, state.known);
            let in_order = known < start || self.variant == SnapshotUnfiltered;
            let last = if known > 0 && !self.is_clear(known) && in_order { known } else { 0 }; // R5b
            let subscription = Some(Subscription { start, last, window: self.variant != NoLate, wrong: false });
            out.will(State { subscription, ..*state }, || format!("client subscribes, start {start}"));
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        let wrong = state.subscription.is_some_and(|subscription| subscription.wrong);
        wrong.then(|| "TWICE or OLDER AFTER NEWER".to_owned())
    }

    fn at_rest(&self, state: &State) -> Option<String> {
        let newest = self.newest_flagged(u8::MAX);
        let last = state.subscription?.last;
        if last == 0 {
            return (!self.is_clear(newest)).then(|| "NEVER SENT the retained message".to_owned());
        }
        (last < newest).then(|| format!("OLD: last sent {last}, newest retained {newest}"))
    }
}

impl Subscriber {
    fn is_clear(&self, src: u8) -> bool {
        self.messages[usize::from(src) - 1] == b'C'
    }

    /// Retain-flagged messages.
    fn flagged(&self) -> impl DoubleEndedIterator<Item = u8> {
        let offsets = 1..=u8::try_from(self.messages.len()).unwrap_or(u8::MAX);
        offsets.filter(|offset| self.messages[usize::from(*offset) - 1] != b'N')
    }

    /// The newest of them up to this offset, or 0.
    fn newest_flagged(&self, up_to: u8) -> u8 {
        self.flagged().rfind(|offset| *offset <= up_to).unwrap_or(0)
    }

    fn landing(&self, state: &State, out: &mut Steps<State>) {
        if let Some(kind) = self.messages.get(usize::from(state.length)) {
            let length = state.length + 1;
            out.will(State { length, ..*state }, || format!("message {length} ({}) lands", char::from(*kind)));
        }
        for src in self.flagged().take_while(|src| *src <= state.length) {
            let first = !state.written.has(src);
            if !first && state.spare == 0 {
                continue;
            }
            let next = State {
                written: state.written.with(src),
                top: state.top.max(src),
                unread: state.unread.with(Record::Src(src)),
                spare: if first { state.spare } else { state.spare - 1 },
                ..*state
            };
            let certain = first && src == self.newest_flagged(state.length);
            out.step(certain, next, || format!("retained record {src} lands"));
        }
        for marked in state.marked + 1..=state.length {
            if state.top >= self.newest_flagged(marked) {
                let next = State { marked, unread: state.unread.with(Record::Mark(marked)), ..*state };
                out.step(marked == state.length, next, || format!("mark {marked} lands"));
            }
        }
    }

    fn reading(&self, state: &State, out: &mut Steps<State>) {
        let Some(&record) = state.unread.first() else { return };
        let mut next = State { unread: state.unread.without(0), ..*state };
        match record {
            Record::Src(src) => {
                next.known = state.known.max(src);
                next.subscription = state.subscription.map(|subscription| {
                    let late = self.is_sent_late(state.known, src, subscription);
                    if late { subscription.sent(src) } else { subscription }
                });
            }
            Record::Mark(mark) => {
                let closed = |it: Subscription| Subscription { window: it.window && mark < it.start - 1, ..it };
                next.subscription = state.subscription.map(closed); // R5e
            }
        }
        out.will(next, || format!("node reads {record:?}"));
    }

    fn is_sent_late(&self, known: u8, src: u8, Subscription { start, last, window, .. }: Subscription) -> bool {
        let late = known < src && src < start && window && (last < src || self.variant == LateUnchecked); // R5c
        let older_payload = || last > 0 && !self.is_clear(last) && self.variant != LateClearDropped; // R5d
        late && (!self.is_clear(src) || older_payload())
    }
}

fn subscriber(variant: Variant, messages: &'static str) -> Subscriber {
    Subscriber { variant, messages: messages.as_bytes() }
}

mod good {
    use super::*;

    #[test]
    fn a_message_that_is_not_retained_between() {
        passes(&subscriber(Good, "RNR"), 11_750);
    }

    #[test]
    fn a_clear_and_a_message_that_is_not_retained() {
        passes(&subscriber(Good, "RCN"), 12_888);
    }

    #[test]
    fn a_clear_between() {
        passes(&subscriber(Good, "RCR"), 103_796);
    }

    #[test]
    fn a_clear_at_the_end() {
        passes(&subscriber(Good, "RRC"), 104_225);
    }
}

mod broken {
    use super::*;

    #[test]
    fn no_late() {
        fails(&subscriber(NoLate, "R"), "NEVER SENT", 7);
    }

    #[test]
    fn snapshot_unfiltered() {
        fails(&subscriber(SnapshotUnfiltered, "R"), "TWICE", 5);
    }

    #[test]
    fn late_unchecked() {
        fails(&subscriber(LateUnchecked, "RR"), "TWICE", 7);
    }

    #[test]
    fn late_clear_dropped() {
        fails(&subscriber(LateClearDropped, "RC"), "OLD", 11);
    }

    #[test]
    fn mark_in_other_topic() {
        fails(&subscriber(MarkInOtherTopic, "R"), "NEVER SENT", 8);
    }
}
