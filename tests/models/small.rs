//! Collections that fit into a state: bounded, copied as a whole, cheap to hash.

use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// At most `N` items in a row. Every method gives a changed copy: a state is never changed, it is followed by others.
#[derive(Clone, Copy)]
pub struct List<T, const N: usize> {
    count: u8,
    items: [T; N],
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// A list of these.
    pub fn of(items: &[T]) -> Self {
        let mut list = Self { count: 0, items: [T::default(); N] };
        for item in items {
            list = list.with(*item);
        }
        list
    }

    /// How many there are; also the offset of the next one.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// The item with this number, which must be there.
    pub fn at(&self, number: u8) -> T {
        self[usize::from(number)]
    }

    /// The items from this number on.
    pub fn since(&self, number: u8) -> &[T] {
        &self[usize::from(number.min(self.count))..]
    }

    /// The items before this number.
    pub fn before(&self, number: u8) -> &[T] {
        &self[..usize::from(number)]
    }

    /// The items with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u8, T)> {
        (0..).zip(self.iter().copied())
    }

    /// The number of the first item that is like this.
    pub fn find(&self, is_it: impl Fn(T) -> bool) -> Option<u8> {
        self.numbered().find(|(_, item)| is_it(*item)).map(|(number, _)| number)
    }

    /// With one more at the end.
    #[must_use]
    pub fn with(mut self, item: T) -> Self {
        self.items[usize::from(self.count)] = item;
        self.count += 1;
        self
    }

    /// With another item at this number.
    #[must_use]
    pub fn put(mut self, number: u8, item: T) -> Self {
        assert!(number < self.count, "there is no item {number}");
        self.items[usize::from(number)] = item;
        self
    }

    /// Without the item at this number.
    #[must_use]
    pub fn without(mut self, number: u8) -> Self {
        assert!(number < self.count, "there is no item {number}");
        self.items.copy_within(usize::from(number) + 1..usize::from(self.count), usize::from(number));
        self.count -= 1;
        self
    }
}

impl<T: Copy + Default + Ord, const N: usize> List<T, N> {
    /// With one more in a list that is kept sorted: a bag, where order has no meaning and equal bags are equal states.
    #[must_use]
    pub fn insert(self, item: T) -> Self {
        let mut list = self.with(item);
        list.items[..usize::from(list.count)].sort_unstable();
        list
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..usize::from(self.count)]
    }
}

impl<T: Hash, const N: usize> Hash for List<T, N> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u8(self.count);
        for item in self.iter() {
            item.hash(hasher);
        }
    }
}

impl<T: PartialEq, const N: usize> PartialEq for List<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, const N: usize> Eq for List<T, N> {}

impl<T: Debug, const N: usize> Debug for List<T, N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A set of the numbers 0 to 7.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    /// Is this number in it?
    pub fn has(self, number: u8) -> bool {
        self.0 & 1 << number != 0
    }

    /// Is there nothing in it?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// With this number.
    #[must_use]
    pub fn with(self, number: u8) -> Self {
        Self(self.0 | 1 << number)
    }

    /// Without this number.
    #[must_use]
    pub fn without(self, number: u8) -> Self {
        Self(self.0 & !(1 << number))
    }

    /// With all numbers of the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The numbers, from the lowest on.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u8> {
        (0..8).filter(move |number| self.has(*number))
    }
}
