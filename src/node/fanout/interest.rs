//! Which partitions this node reads: those that a subscription of a connected client can touch, no others.

use std::collections::BTreeMap;

use crate::journal::{Partition, TopicIndex};
use crate::mqtt::TopicFilter;
use crate::route::mapping::Mapping;
use crate::route::partition::partition_of;

/// What one filter needs of one kafka topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// Every partition.
    Whole(TopicIndex),
    /// The one partition that its one key goes to.
    Exact(Partition),
}

/// Counts of wants per kafka topic.
#[derive(Debug)]
pub(super) struct Interest {
    topics: Vec<TopicInterest>,
}

#[derive(Debug)]
struct TopicInterest {
    /// What keys are hashed over. Fixed, so that a filter's want is the same when it is taken back.
    partitions_at_start: u32,
    partitions: u32,
    whole: usize,
    exact: BTreeMap<u32, usize>,
    /// Reading one partition for one key is right only while every producer partitions as we do.
    pruning: bool,
}

impl Interest {
    pub(super) fn new(partitions: impl Iterator<Item = u32>) -> Self {
        let topics = partitions
            .map(|partitions| TopicInterest {
                partitions_at_start: partitions,
                partitions,
                whole: 0,
                exact: BTreeMap::new(),
                pruning: true,
            })
            .collect();
        Self { topics }
    }

    /// What a filter needs.
    pub(super) fn wants_of(&self, mapping: &Mapping, filter: &TopicFilter) -> Vec<Want> {
        let want = |touch: crate::route::mapping::Touch| {
            let topic = TopicIndex(touch.topic.0);
            let hashed_over = self.topics.get(usize::from(topic.0)).map_or(0, |t| t.partitions_at_start);
            match touch.key {
                Some(key) if hashed_over > 0 => {
                    Want::Exact(Partition { topic, number: partition_of(&key, hashed_over) })
                }
                Some(_) | None => Want::Whole(topic),
            }
        };
        mapping.touched_by(filter).into_iter().map(want).collect()
    }

    pub(super) fn add(&mut self, want: Want) {
        match want {
            Want::Whole(topic) => {
                if let Some(interest) = self.topics.get_mut(usize::from(topic.0)) {
                    interest.whole += 1;
                }
            }
            Want::Exact(partition) => {
                if let Some(interest) = self.topics.get_mut(usize::from(partition.topic.0)) {
                    *interest.exact.entry(partition.number).or_default() += 1;
                }
            }
        }
    }

    pub(super) fn remove(&mut self, want: Want) {
        match want {
            Want::Whole(topic) => {
                if let Some(interest) = self.topics.get_mut(usize::from(topic.0)) {
                    interest.whole = interest.whole.saturating_sub(1);
                }
            }
            Want::Exact(partition) => {
                let Some(interest) = self.topics.get_mut(usize::from(partition.topic.0)) else { return };
                if let Some(count) = interest.exact.get_mut(&partition.number) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        interest.exact.remove(&partition.number);
                    }
                }
            }
        }
    }

    /// Whether anybody needs the partition.
    pub(super) fn is_wanted(&self, partition: Partition) -> bool {
        self.topics.get(usize::from(partition.topic.0)).is_some_and(|interest| {
            interest.whole > 0
                || if interest.pruning {
                    interest.exact.contains_key(&partition.number)
                } else {
                    !interest.exact.is_empty()
                }
        })
    }

    /// The partitions behind a want.
    pub(super) fn partitions_of(&self, want: Want) -> Vec<Partition> {
        match want {
            Want::Exact(partition) if self.topics.get(usize::from(partition.topic.0)).is_some_and(|t| t.pruning) => {
                vec![partition]
            }
            Want::Exact(Partition { topic, .. }) | Want::Whole(topic) => self.all_of(topic),
        }
    }

    fn all_of(&self, topic: TopicIndex) -> Vec<Partition> {
        let partitions = self.topics.get(usize::from(topic.0)).map_or(0, |interest| interest.partitions);
        (0..partitions).map(|number| Partition { topic, number }).collect()
    }

    /// Every wanted partition of a kafka topic.
    pub(super) fn wanted_of(&self, topic: TopicIndex) -> Vec<Partition> {
        self.all_of(topic).into_iter().filter(|&partition| self.is_wanted(partition)).collect()
    }

    /// Whether a key may be looked for in its own partition only. `hashed_over`: what the producers of this product use.
    pub(super) fn hashed_over(&self, topic: TopicIndex) -> Option<u32> {
        self.topics.get(usize::from(topic.0)).filter(|interest| interest.pruning).map(|t| t.partitions_at_start)
    }

    /// Keys are found in other partitions than ours would be: from now on all partitions are read for them. True if that
    /// is news.
    pub(super) fn stop_pruning(&mut self, topic: TopicIndex) -> bool {
        self.topics
            .get_mut(usize::from(topic.0))
            .is_some_and(|interest| std::mem::replace(&mut interest.pruning, false))
    }

    /// The kafka topic has more partitions.
    pub(super) fn grow(&mut self, topic: TopicIndex, partitions: u32) {
        if let Some(interest) = self.topics.get_mut(usize::from(topic.0)) {
            interest.partitions = partitions.max(interest.partitions);
        }
    }
}
