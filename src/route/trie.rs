//! Topic filters → subscribers.
//!
//! Filters without a wildcard are found by one look-up of the whole topic; only filters with `+` or `#` make nodes,
//! one per level. So a broker whose devices subscribe to their own topics pays for the topic once, and the walk over
//! levels stays as small as the number of wildcard filters. Nothing is ever iterated in hash order: what [`Trie::matches`]
//! finds comes in an order fixed by the filters and the subscribers alone.

mod exact;
mod index;
mod levels;
mod subscribers;
mod wild;

use crate::mqtt::TopicFilter;

use exact::Exact;
use wild::Wild;

/// A set of (filter, subscriber) pairs with a value each, matched against topic names (MQTT5 §4.7).
#[derive(Debug)]
pub struct Trie<S, V> {
    exact: Exact<S, V>,
    wild: Wild<S, V>,
    pairs: usize,
}

impl<S, V> Default for Trie<S, V> {
    fn default() -> Self {
        Self::with_seed(0)
    }
}

impl<S, V> Trie<S, V> {
    /// An empty set whose hashes depend on `seed`: a random one keeps clients from choosing topics that collide. It
    /// changes nothing that can be observed but time.
    pub fn with_seed(seed: u64) -> Self {
        Self { exact: Exact::new(seed), wild: Wild::new(seed), pairs: 0 }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }
}

impl<S: Copy + Ord, V> Trie<S, V> {
    /// Adds or replaces; returns the value that was there.
    pub fn insert(&mut self, filter: &TopicFilter, subscriber: S, value: V) -> Option<V> {
        let old = if filter.has_wildcard() {
            self.wild.insert(filter, subscriber, value)
        } else {
            self.exact.insert(filter, subscriber, value)
        };
        self.pairs += usize::from(old.is_none());
        old
    }

    /// Takes one away; returns its value. What it alone kept in memory is freed.
    pub fn remove(&mut self, filter: &TopicFilter, subscriber: S) -> Option<V> {
        let old = if filter.has_wildcard() {
            self.wild.remove(filter, subscriber)
        } else {
            self.exact.remove(filter, subscriber)
        };
        self.pairs -= usize::from(old.is_some());
        old
    }

    /// Calls `found` for each pair whose filter matches `topic`, wildcards at the first level not matching `$` topics
    /// [MQTT-4.7.2-1]. A subscriber with several matching filters is found several times.
    ///
    /// The order is: the filter equal to the topic, then filters with wildcards from short to long prefixes, literal
    /// levels before `+`; within one filter in order of subscribers. Allocates nothing for topics of up to 32 levels.
    pub fn matches<'t>(&'t self, topic: &str, mut found: impl FnMut(S, &'t V)) {
        self.exact.matches(topic, &mut found);
        self.wild.matches(topic, &mut found);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    fn found(trie: &Trie<u32, u8>, topic: &str) -> Vec<u32> {
        let mut all = Vec::new();
        trie.matches(topic, |s, _| all.push(s));
        all
    }

    fn trie(filters: &[&str]) -> Trie<u32, u8> {
        let mut trie = Trie::default();
        for (n, text) in (0..).zip(filters) {
            assert_eq!(trie.insert(&filter(text), n, 0), None);
        }
        trie
    }

    /// MQTT5 §4.7 by its words, level by level.
    fn naive(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
        let multi = filter.last() == Some(&"#");
        let fixed = filter.len() - usize::from(multi);
        (if multi { topic.len() >= fixed } else { topic.len() == fixed })
            && filter.iter().take(fixed).zip(&topic).all(|(f, t)| *f == "+" || f == t)
    }

    #[test]
    fn hash_matches_the_parent_level_too() {
        let t = trie(&["sport/#", "#", "sport/tennis/#", "sport/+", "+"]);
        assert_eq!(found(&t, "sport"), [1, 0, 4]);
        assert_eq!(found(&t, "sport/"), [1, 0, 3]);
        assert_eq!(found(&t, "sport/tennis/1"), [1, 0, 2]);
    }

    #[test]
    fn wildcards_at_the_first_level_do_not_match_dollar_topics() {
        let t = trie(&["#", "+/monitor", "$SYS/#", "$SYS/+", "$SYS/monitor", "+/+"]);
        let mut all = found(&t, "$SYS/monitor");
        all.sort_unstable();
        assert_eq!(all, [2, 3, 4]);
        assert_eq!(found(&t, "a/$SYS"), [0, 5]);
    }

    #[test]
    fn empty_levels_count() {
        let t = trie(&["/finance", "/+", "+/+", "+", "//", "+/+/+", "/#"]);
        let sorted = |topic| {
            let mut all = found(&t, topic);
            all.sort_unstable();
            all
        };
        assert_eq!(sorted("/finance"), [0, 1, 2, 6]);
        assert_eq!(sorted("/"), [1, 2, 6]);
        assert_eq!(sorted("//"), [4, 5, 6]);
    }

    #[test]
    fn the_order_does_not_depend_on_the_seed_or_on_the_order_of_insertion() {
        let filters = ["a/b", "a/+", "+/b", "#", "a/#", "+/#", "a/b/#"];
        let mut forward = Trie::with_seed(1);
        let mut backward = Trie::with_seed(u64::MAX);
        for n in 0..filters.len() {
            forward.insert(&filter(filters[n]), n, ());
            let back = filters.len() - 1 - n;
            backward.insert(&filter(filters[back]), back, ());
        }
        let order = |trie: &Trie<usize, ()>| {
            let mut all = Vec::new();
            trie.matches("a/b", |s, ()| all.push(s));
            all
        };
        assert_eq!(order(&forward), order(&backward));
        assert_eq!(order(&forward), [0, 3, 4, 6, 1, 5, 2]);
    }

    #[test]
    fn a_hundred_thousand_subscribers_of_one_filter_come_and_go() {
        for text in ["news", "news/#"] {
            let (filter, mut t) = (filter(text), Trie::default());
            for n in 0..100_000_u32 {
                t.insert(&filter, n.wrapping_mul(0x9E37_79B1), n);
            }
            let mut count = 0;
            t.matches("news", |_, _| count += 1);
            assert_eq!((count, t.len()), (100_000, 100_000));
            for n in 0..100_000_u32 {
                assert_eq!(t.remove(&filter, n.wrapping_mul(0x9E37_79B1)), Some(n));
            }
            assert!(t.is_empty());
        }
    }

    #[test]
    fn matching_allocates_nothing() {
        let t = trie(&["a/b/c", "a/+/c", "+/+/+", "a/#", "#", "a/b/+"]);
        let deep = vec!["a"; 32].join("/");
        let mut count = 0;
        let used = allocation_counter::measure(|| {
            t.matches("a/b/c", |_, _| count += 1);
            t.matches(&deep, |_, _| count += 1);
        });
        assert_eq!((count, used.count_total), (8, 0));
    }

    #[test]
    fn removal_gives_the_memory_back() {
        let used = allocation_counter::measure(|| {
            let mut t = Trie::default();
            for round in 0..3 {
                for n in 0..2_000_u32 {
                    t.insert(&filter(&format!("dev/{n}/{round}/+")), n, ());
                    t.insert(&filter(&format!("dev/{n}/{round}/a rather long last level")), n, ());
                }
                for n in 0..2_000_u32 {
                    t.remove(&filter(&format!("dev/{n}/{round}/+")), n);
                    t.remove(&filter(&format!("dev/{n}/{round}/a rather long last level")), n);
                }
                assert!(t.is_empty());
            }
            assert_eq!(t.exact.heap_entries() + t.wild.heap_entries(), 0);
            std::mem::forget(t);
        });
        assert_eq!(used.bytes_current, 0);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "$x", "a level that is longer than a short one"])
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|l| l.join("/")).prop_filter("not empty", |t| !t.is_empty())
    }

    fn any_filter() -> impl Strategy<Value = String> {
        (prop::collection::vec(prop_oneof![2 => level(), 1 => Just("+")], 0..4), any::<bool>())
            .prop_map(|(mut l, multi)| {
                if multi || l.is_empty() {
                    l.push("#");
                }
                l.join("/")
            })
            .prop_filter("not empty", |t| !t.is_empty())
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds(
            steps in prop::collection::vec((any::<bool>(), any_filter(), 0..4_u32, any::<u8>()), 0..60),
            topics in prop::collection::vec(topic(), 1..20),
            seed in any::<u64>(),
        ) {
            let (mut model, mut trie) = (BTreeMap::new(), Trie::with_seed(seed));
            for (add, text, subscriber, value) in steps {
                let pair = (text.clone(), subscriber);
                if add {
                    prop_assert_eq!(trie.insert(&filter(&text), subscriber, value), model.insert(pair, value));
                } else {
                    prop_assert_eq!(trie.remove(&filter(&text), subscriber), model.remove(&pair));
                }
                prop_assert_eq!(trie.len(), model.len());
            }
            for topic in topics {
                let mut got = Vec::new();
                trie.matches(&topic, |s, &v| got.push((s, v)));
                got.sort_unstable();
                let mut want: Vec<_> =
                    model.iter().filter(|((f, _), _)| naive(f, &topic)).map(|((_, s), v)| (*s, *v)).collect();
                want.sort_unstable();
                prop_assert_eq!(got, want, "{}", topic);
            }
        }
    }
}
