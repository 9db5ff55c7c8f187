//! Topic filters → subscribers.

use crate::mqtt::TopicFilter;

/// A set of (filter, subscriber) pairs with a value each, matched against topic names (MQTT5 §4.7).
#[derive(Debug, Default)]
pub struct Trie<S, V> {
    _todo: std::marker::PhantomData<(S, V)>,
}

impl<S: Copy + Ord, V> Trie<S, V> {
    /// Adds or replaces; returns the value that was there.
    pub fn insert(&mut self, _filter: &TopicFilter, _subscriber: S, _value: V) -> Option<V> {
        todo!("route")
    }
    /// Takes one away; returns its value.
    pub fn remove(&mut self, _filter: &TopicFilter, _subscriber: S) -> Option<V> {
        todo!("route")
    }
    /// Calls `found` for each pair whose filter matches `topic`, wildcards at the first level not matching `$` topics
    /// [MQTT-4.7.2-1]. A subscriber with several matching filters is found several times.
    pub fn matches<'t>(&'t self, _topic: &str, _found: impl FnMut(S, &'t V)) {
        todo!("route")
    }
    /// Number of pairs.
    pub fn len(&self) -> usize {
        todo!("route")
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
