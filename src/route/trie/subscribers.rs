//! The subscribers of one filter: most filters have one, a few have a hundred thousand.

use std::collections::BTreeMap;

/// From here on a tree: a vector would move too much on every insertion.
const FEW_MAX: usize = 32;

/// Subscribers in their order, each with a value.
#[derive(Debug)]
pub(super) enum Subscribers<S, V> {
    None,
    One(S, V),
    /// Sorted, 2 to [`FEW_MAX`].
    Few(Vec<(S, V)>),
    /// Boxed, so that the many nodes with none or one stay small.
    #[expect(clippy::box_collection, reason = "the box keeps the enum at 24 bytes")]
    Many(Box<BTreeMap<S, V>>),
}

impl<S, V> Subscribers<S, V> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<S: Copy + Ord, V> Subscribers<S, V> {
    pub(super) fn insert(&mut self, subscriber: S, value: V) -> Option<V> {
        match self {
            Self::None => {
                *self = Self::One(subscriber, value);
                None
            }
            Self::One(s, v) if *s == subscriber => Some(std::mem::replace(v, value)),
            Self::One(..) => {
                if let Self::One(s, v) = std::mem::replace(self, Self::None) {
                    let mut pair = vec![(s, v), (subscriber, value)];
                    pair.sort_by_key(|(s, _)| *s);
                    *self = Self::Few(pair);
                }
                None
            }
            Self::Few(few) => match few.binary_search_by_key(&subscriber, |(s, _)| *s) {
                Ok(at) => few.get_mut(at).map(|(_, v)| std::mem::replace(v, value)),
                Err(at) => {
                    few.insert(at, (subscriber, value));
                    if few.len() > FEW_MAX {
                        *self = Self::Many(Box::new(std::mem::take(few).into_iter().collect()));
                    }
                    None
                }
            },
            Self::Many(many) => many.insert(subscriber, value),
        }
    }

    pub(super) fn remove(&mut self, subscriber: S) -> Option<V> {
        match self {
            Self::One(s, _) if *s == subscriber => match std::mem::replace(self, Self::None) {
                Self::One(_, v) => Some(v),
                Self::None | Self::Few(_) | Self::Many(_) => None,
            },
            Self::None | Self::One(..) => None,
            Self::Few(few) => {
                let at = few.binary_search_by_key(&subscriber, |(s, _)| *s).ok()?;
                let (_, value) = few.remove(at);
                if few.len() == 1 {
                    *self = few.pop().map_or(Self::None, |(s, v)| Self::One(s, v));
                }
                Some(value)
            }
            Self::Many(many) => {
                let value = many.remove(&subscriber)?;
                if many.len() <= FEW_MAX / 2 {
                    *self = Self::Few(std::mem::take(&mut **many).into_iter().collect());
                }
                Some(value)
            }
        }
    }

    pub(super) fn each<'t>(&'t self, found: &mut impl FnMut(S, &'t V)) {
        match self {
            Self::None => {}
            Self::One(s, v) => found(*s, v),
            Self::Few(few) => few.iter().for_each(|(s, v)| found(*s, v)),
            Self::Many(many) => many.iter().for_each(|(s, v)| found(*s, v)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_case_takes_24_bytes() {
        assert_eq!(size_of::<Subscribers<u64, u64>>(), 24);
    }

    proptest! {
        #[test]
        fn holds_what_a_map_holds(steps in prop::collection::vec((0..3_u8, 0..80_u32, any::<u16>()), 0..400)) {
            let (mut subscribers, mut model) = (Subscribers::None, BTreeMap::new());
            for (kind, s, v) in steps {
                if kind == 0 {
                    prop_assert_eq!(subscribers.remove(s), model.remove(&s));
                } else {
                    prop_assert_eq!(subscribers.insert(s, v), model.insert(s, v));
                }
                let mut all = Vec::new();
                subscribers.each(&mut |s, v| all.push((s, *v)));
                prop_assert_eq!(&all, &model.iter().map(|(s, v)| (*s, *v)).collect::<Vec<_>>());
                prop_assert_eq!(subscribers.is_empty(), model.is_empty());
            }
        }
    }
}
