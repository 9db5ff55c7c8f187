//! The generations of `mqtt.sessions` (F1), as the records of `mqtt.cluster` give them out.
//!
//! A kafka topic that is deleted and made again under its name begins at offset 0 while appends to the one before are still
//! on their way, and Kafka lets them land, because producers name the kafka topic. An epoch must tell these two apart, so
//! that the state of the one before, whose offsets are high, is not taken for the newest. Kafka gives each life of a kafka
//! topic another *topic id*; a record in `mqtt.cluster` gives that topic id a number, its generation, before any node reads
//! the kafka topic.
//!
//! **The rule.** A record asks for a number for a topic id. It counts if the topic id has no number yet and the number is
//! above every number that counted; the first number is whatever the first record says. Else it is void, and whoever wrote
//! it reads that back and asks again.
//!
//! * *All nodes agree.* The rule looks at nothing but the records in the order of the log.
//! * *No two topic ids have the same number*, and a topic id keeps its number: both are in the rule. Two nodes that ask for
//!   the same topic id at once get the number of the first; two that ask for different ones with the same number (one of
//!   them is late, its kafka topic is gone) cannot both count.
//! * *The number of a later life is higher*, because whoever asks for it has read the number of the life before, or that
//!   life was never read by anybody.
//! * *Compaction changes nothing.* Every append has a key of its own, with random bytes in it, also when one is appended
//!   again because its fate is unknown, and no tombstone is ever written. So all of them stay: a few for each life. Were
//!   the key the topic id alone, a second node's record would replace the first behind those that came in between, and
//!   a reader of the compacted log would count otherwise.
//!
//! For what a generation protects, the order of the numbers does not even matter: a state set counts if its generation
//! *is* that of the ledger ([`super::sessions`]).

use std::collections::BTreeMap;

/// Which number each topic id has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    by_topic: BTreeMap<u128, u32>,
}

impl Generations {
    /// The next record of the log. Whether it counts is seen from [`Generations::of`].
    pub(super) fn apply(&mut self, topic_id: u128, number: u32) {
        if !self.by_topic.contains_key(&topic_id) && self.by_topic.values().all(|other| *other < number) {
            self.by_topic.insert(topic_id, number);
        }
    }

    /// The generation of a topic id, once a record of it counted.
    pub fn of(&self, topic_id: u128) -> Option<u32> {
        self.by_topic.get(&topic_id).copied()
    }

    /// What to ask for: above all that counted, and 0 before the first, whose kafka topic may be older than these records.
    pub fn next(&self) -> u32 {
        self.by_topic.values().max().map_or(0, |highest| highest.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::ids::Nonce;
    use super::super::members::Members;
    use super::super::record::cluster::{ClusterKey, Generation};
    use super::*;

    const TOPICS: u128 = 3;

    /// Of the records: topic id and number.
    fn after(records: &[(u128, u32)]) -> Generations {
        let mut generations = Generations::default();
        records.iter().for_each(|(topic_id, number)| generations.apply(*topic_id, *number));
        generations
    }

    /// Every log of up to `left` more records, each by a node that knows any beginning of the log.
    fn every_log(log: &mut Vec<(u128, u32)>, left: usize, check: &mut impl FnMut(&[(u128, u32)])) {
        check(log);
        if left == 0 {
            return;
        }
        for topic_id in 0..TOPICS {
            let numbers: BTreeSet<u32> = (0..=log.len()).map(|known| after(&log[..known]).next()).collect();
            for number in numbers {
                log.push((topic_id, number));
                every_log(log, left - 1, check);
                log.pop();
            }
        }
    }

    #[test]
    fn no_two_lives_share_a_generation_and_none_ever_changes() {
        let mut logs = 0;
        every_log(&mut Vec::new(), 6, &mut |log| {
            logs += 1;
            let now = after(log);
            let numbers: Vec<u32> = (0..TOPICS).filter_map(|topic_id| now.of(topic_id)).collect();
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{log:?}");
            let Some((_, before)) = log.split_last() else { return };
            let before = after(before);
            for topic_id in 0..TOPICS {
                assert!(before.of(topic_id).is_none_or(|number| now.of(topic_id) == Some(number)), "{log:?}");
            }
        });
        assert!(logs > 10_000, "{logs}");
    }

    #[test]
    fn who_has_read_the_whole_log_is_given_the_next_generation() {
        every_log(&mut Vec::new(), 4, &mut |log| {
            let before = after(log);
            for topic_id in (0..TOPICS).filter(|topic_id| before.of(*topic_id).is_none()) {
                let now = after(&[log, &[(topic_id, before.next())]].concat());
                assert!(now.of(topic_id).is_some_and(|own| (0..TOPICS).all(|other| now.of(other) <= Some(own))));
            }
        });
    }

    #[test]
    fn the_first_life_is_generation_0_and_who_comes_too_late_is_void() {
        assert_eq!(after(&[(7, 0)]).of(7), Some(0));
        let late = after(&[(7, 0), (8, 1), (9, 1), (8, 2)]);
        assert_eq!((late.of(8), late.of(9), late.next()), (Some(1), None, 2));
        assert_eq!(after(&[(7, 0), (8, 1), (9, 1), (9, 2)]).of(9), Some(2));
    }

    proptest! {
        /// Keys are never used twice, but for the same record that landed twice in a row.
        #[test]
        fn the_compacted_log_answers_as_the_whole(
            records in proptest::collection::vec((0..TOPICS, 0..4_u32, 1..3_usize), 0..12),
            cut in 0..30_usize,
        ) {
            let key = |topic_id, at: usize| {
                ClusterKey::Generation { topic_id, name: Nonce([u8::try_from(at).unwrap(); 16]) }.encode()
            };
            let once = |(at, (topic_id, number, times)): (usize, &(u128, u32, usize))| {
                let value = Generation { number: *number }.encode();
                vec![(key(*topic_id, at), value); *times]
            };
            let log: Vec<_> = records.iter().enumerate().flat_map(once).collect();
            let is_last = |at: usize, end: usize| !log[at + 1..end].iter().any(|(key, _)| *key == log[at].0);
            // Compacted up to `until`; the rest as it was written.
            let replay = |until: usize| {
                let mut members = Members::default();
                for (at, (key, value)) in log.iter().enumerate().filter(|(at, _)| *at >= until || is_last(*at, until)) {
                    members.apply(i64::try_from(at).unwrap(), 0, key, Some(value));
                }
                members.generations().clone()
            };
            prop_assert_eq!(replay(0), replay(log.len()));
            prop_assert_eq!(replay(0), replay(cut.min(log.len())));
        }
    }
}
