//! Which kafka topic a position means: its number in records ↔ its index in this process.

use std::collections::BTreeMap;

use crate::journal::{Partition, TopicIndex};
use crate::ledger::ids::{Place, topic_number};

/// Another number once the kafka topic was recreated: what a position says of the old one is void then.
#[derive(Debug, Default)]
pub(super) struct Places {
    numbers: BTreeMap<TopicIndex, u32>,
    topics: BTreeMap<u32, TopicIndex>,
}

impl Places {
    /// `topic_id` as the journal last saw it.
    pub(super) fn set(&mut self, topic: TopicIndex, topic_id: Option<u128>) {
        if let Some(before) = self.numbers.remove(&topic) {
            self.topics.remove(&before);
        }
        if let Some(number) = topic_id.map(topic_number) {
            self.numbers.insert(topic, number);
            self.topics.insert(number, topic);
        }
    }

    pub(super) fn knows(&self, topic: TopicIndex) -> bool {
        self.numbers.contains_key(&topic)
    }

    pub(super) fn place(&self, partition: Partition) -> Option<Place> {
        let topic = *self.numbers.get(&partition.topic)?;
        Some(Place { topic, partition: partition.number })
    }

    /// `None`: the kafka topic is gone, or is no longer one of this node's.
    pub(super) fn partition(&self, place: Place) -> Option<Partition> {
        let topic = *self.topics.get(&place.topic)?;
        Some(Partition { topic, number: place.partition })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recreated_kafka_topic_has_another_number_and_the_old_one_means_nothing() {
        let partition = Partition { topic: TopicIndex(2), number: 5 };
        let mut places = Places::default();
        assert_eq!(places.place(partition), None);
        places.set(TopicIndex(2), Some(10));
        let before = places.place(partition).unwrap();
        assert_eq!(places.partition(before), Some(partition));
        places.set(TopicIndex(2), Some(11));
        assert_eq!(places.partition(before), None);
        assert_eq!(places.place(partition).and_then(|place| places.partition(place)), Some(partition));
    }
}
