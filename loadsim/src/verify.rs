//! The proof: which messages were lost, duplicated or reordered, per publisher (whose messages all have one topic)
//! and receiver.
//!
//! A *receiver* is what a message is owed to once: a subscriber alone, or the members of a shared subscription
//! together. Every worker collects [`Track`]s of its own subscribers; [`judge`] puts them all together at the end.

use std::collections::{BTreeMap, HashMap};

use crate::sequences::{Seen, Sequences};
use crate::stamp::Stamp;

/// More pairs of publisher and subscriber than this are not followed; their messages count as foreign.
const TRACKS_MAX: usize = 1 << 24;

/// What one subscriber got from one publisher.
#[derive(Debug)]
pub struct Track {
    /// Index of the subscriber.
    pub subscriber: u32,
    /// From the stamps.
    pub run: u32,
    /// From the stamps.
    pub publisher: u32,
    /// Every sequence that arrived.
    pub seen: Sequences,
    /// Arrivals of what had arrived before.
    pub duplicated: u64,
    /// First arrivals after the first arrival of a later message.
    pub reordered: u64,
}

/// The sequences that a subscriber has a right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owing {
    /// All of this run, and nothing of another: everybody had subscribed before the first message.
    Run(u32),
    /// From the first one that arrives on, of any run.
    FromFirst,
}

/// Follows the messages that arrive at the subscribers of one worker.
#[derive(Debug)]
pub struct Verifier {
    owing: Owing,
    tracks: Vec<Track>,
    index: HashMap<(u32, u32, u32), usize>,
    foreign: u64,
}

impl Verifier {
    /// Nothing has arrived.
    pub fn new(owing: Owing) -> Self {
        Self { owing, tracks: Vec::new(), index: HashMap::new(), foreign: 0 }
    }

    /// Takes a message; its stamp if it is the first of its kind, `None` for a duplicate or a foreign message.
    pub fn take(&mut self, subscriber: u32, payload: &[u8]) -> Option<Stamp> {
        let Some((stamp, track)) = Stamp::read(payload).and_then(|stamp| Some((stamp, self.track(subscriber, stamp)?)))
        else {
            self.foreign += 1;
            return None;
        };
        match track.seen.insert(stamp.sequence) {
            Seen::InOrder => Some(stamp),
            Seen::Late => {
                track.reordered += 1;
                Some(stamp)
            }
            Seen::Again => {
                track.duplicated += 1;
                None
            }
            Seen::Absurd => {
                self.foreign += 1;
                None
            }
        }
    }

    /// One more than the largest sequence that a subscriber got of a topic.
    pub fn next(&self, subscriber: u32, run: u32, topic: u32) -> u64 {
        let at = self.index.get(&(subscriber, run, topic));
        at.and_then(|at| self.tracks.get(*at)).map_or(0, |track| track.seen.next())
    }

    /// What was collected, and the number of foreign messages.
    pub fn into_tracks(self) -> (Vec<Track>, u64) {
        (self.tracks, self.foreign)
    }

    fn track(&mut self, subscriber: u32, stamp: Stamp) -> Option<&mut Track> {
        let Stamp { run, publisher, sequence, .. } = stamp;
        let first = match self.owing {
            Owing::Run(own) if own == run => 0,
            Owing::Run(_) => return None,
            Owing::FromFirst => sequence,
        };
        let at = match self.index.get(&(subscriber, run, publisher)) {
            Some(at) => *at,
            None if self.tracks.len() >= TRACKS_MAX => return None,
            None => {
                let seen = Sequences::starting_at(first);
                self.tracks.push(Track { subscriber, run, publisher, seen, duplicated: 0, reordered: 0 });
                self.index.insert((subscriber, run, publisher), self.tracks.len() - 1);
                self.tracks.len() - 1
            }
        };
        self.tracks.get_mut(at)
    }
}

/// What the receivers have a right to on one topic.
#[derive(Debug)]
pub struct Owed {
    /// Index of the topic, which is what stamps name as publisher.
    pub publisher: u32,
    /// QoS 1 and 2: what was acknowledged. QoS 0: what was sent.
    pub sequences: Sequences,
    /// The receivers whose filter matches.
    pub receivers: Vec<u32>,
}

/// The verdict. One message to three receivers counts as three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Proof {
    /// Owed: acknowledged (QoS 1) or sent (QoS 0), once per receiver. Not known without the publishers.
    pub expected: Option<u64>,
    /// Arrived, each once.
    pub delivered: u64,
    /// Owed and never arrived; without the publishers: gaps between what arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived for the first time after a later message of the same publisher and topic.
    pub reordered: u64,
    /// Without a stamp of this run.
    pub foreign: u64,
}

/// Judges what arrived; `receiver_of` tells the receiver of each subscriber. Without `owed` only gaps are known.
pub fn judge(tracks: &[Track], foreign: u64, receiver_of: &[u32], owed: Option<&[Owed]>) -> Proof {
    let mut proof = Proof { foreign, ..Proof::default() };
    let mut streams: BTreeMap<(u32, u32), Vec<&Sequences>> = BTreeMap::new();
    let mut runs: BTreeMap<(u32, u32, u32), Vec<&Sequences>> = BTreeMap::new();
    for track in tracks {
        proof.duplicated += track.duplicated;
        proof.reordered += track.reordered;
        let receiver = usize::try_from(track.subscriber).ok().and_then(|index| receiver_of.get(index)).copied();
        let receiver = receiver.unwrap_or(u32::MAX);
        streams.entry((receiver, track.publisher)).or_default().push(&track.seen);
        runs.entry((receiver, track.run, track.publisher)).or_default().push(&track.seen);
    }
    for sets in runs.values() {
        let once = Sequences::united(sets);
        proof.delivered += once;
        proof.duplicated += sets.iter().map(|set| set.len()).sum::<u64>() - once;
    }
    if let Some(owed) = owed {
        let mut expected = 0;
        for Owed { publisher, sequences, receivers } in owed {
            for receiver in receivers {
                expected += sequences.len();
                let sets = streams.get(&(*receiver, *publisher)).map_or(&[][..], Vec::as_slice);
                proof.lost += sequences.missing_from(sets);
            }
        }
        proof.expected = Some(expected);
    } else {
        proof.lost = runs.values().map(|sets| Sequences::gaps(sets)).sum();
    }
    proof
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::STAMP_BYTES;

    const RUN: u32 = 9;

    fn payload(run: u32, publisher: u32, sequence: u64) -> [u8; STAMP_BYTES] {
        let mut payload = [0; STAMP_BYTES];
        Stamp { run, publisher, sequence, intended_ns: 0 }.write(&mut payload);
        payload
    }

    /// Arrivals are (subscriber, publisher, sequence).
    fn verdict(owing: Owing, arrivals: &[(u32, u32, u64)], receiver_of: &[u32], owed: Option<&[Owed]>) -> Proof {
        let mut verifier = Verifier::new(owing);
        for &(subscriber, publisher, sequence) in arrivals {
            verifier.take(subscriber, &payload(RUN, publisher, sequence));
        }
        let (tracks, foreign) = verifier.into_tracks();
        judge(&tracks, foreign, receiver_of, owed)
    }

    fn owed(publisher: u32, count: u64, receivers: &[u32]) -> Owed {
        Owed { publisher, sequences: Sequences::all(count), receivers: receivers.to_vec() }
    }

    #[test]
    fn a_perfect_run_has_nothing_to_complain_about() {
        let proof = verdict(
            Owing::Run(RUN),
            &[(0, 0, 0), (0, 1, 0), (0, 0, 1)],
            &[0],
            Some(&[owed(0, 2, &[0]), owed(1, 1, &[0])]),
        );
        assert_eq!(proof, Proof { expected: Some(3), delivered: 3, ..Proof::default() });
    }

    #[test]
    fn loss_is_seen_in_the_middle_at_the_end_and_of_everything() {
        let owed = [owed(0, 4, &[0, 1]), owed(1, 2, &[1])];
        let proof = verdict(Owing::Run(RUN), &[(0, 0, 0), (0, 0, 2), (1, 0, 3)], &[0, 1], Some(&owed));
        assert_eq!((proof.expected, proof.delivered, proof.lost), (Some(10), 3, 2 + 3 + 2));
        assert_eq!((proof.duplicated, proof.reordered), (0, 0));
    }

    #[test]
    fn what_was_not_acknowledged_is_not_lost() {
        let mut acked = Sequences::default();
        acked.insert(1);
        let owed = [Owed { publisher: 0, sequences: acked, receivers: vec![0] }];
        assert_eq!(verdict(Owing::Run(RUN), &[(0, 0, 1), (0, 0, 2)], &[0], Some(&owed)).lost, 0);
    }

    #[test]
    fn repetition_and_order_are_told_apart() {
        let arrivals = [(0, 0, 0), (0, 0, 2), (0, 0, 1), (0, 0, 1), (0, 0, 2)];
        let proof = verdict(Owing::Run(RUN), &arrivals, &[0], Some(&[owed(0, 3, &[0])]));
        assert_eq!((proof.lost, proof.duplicated, proof.reordered), (0, 2, 1));
    }

    #[test]
    fn the_order_of_different_publishers_is_free() {
        let proof = verdict(Owing::Run(RUN), &[(0, 1, 0), (0, 0, 0), (0, 1, 1)], &[0], None);
        assert_eq!((proof.lost, proof.reordered), (0, 0));
    }

    #[test]
    fn members_of_a_shared_subscription_are_owed_each_message_once_together() {
        let arrivals = [(0, 0, 0), (1, 0, 1), (0, 0, 2), (1, 0, 2)];
        let proof = verdict(Owing::Run(RUN), &arrivals, &[5, 5], Some(&[owed(0, 4, &[5])]));
        let wanted =
            Proof { expected: Some(4), delivered: 3, lost: 1, duplicated: 1, reordered: 0, ..Proof::default() };
        assert_eq!(proof, wanted);
    }

    #[test]
    fn without_the_publishers_only_gaps_count() {
        let proof = verdict(Owing::FromFirst, &[(0, 0, 10), (0, 0, 13)], &[0], None);
        assert_eq!((proof.expected, proof.delivered, proof.lost), (None, 2, 2));
    }

    #[test]
    fn messages_of_other_runs_and_programs_are_foreign() {
        let mut verifier = Verifier::new(Owing::Run(RUN));
        assert_eq!(verifier.take(0, &payload(RUN + 1, 0, 0)), None);
        assert_eq!(verifier.take(0, b"hello"), None);
        assert_eq!(verifier.into_tracks().1, 2);
    }
}
