//! The texts of levels, each kept once: `speed` below a million vehicles is one text.

use super::index::{Index, NONE, hash_text, take_slot};

const SHORT_BYTES: usize = 22;

/// Level texts by number, counted by use.
#[derive(Debug)]
pub(super) struct Levels {
    seed: u64,
    index: Index,
    entries: Vec<Level>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Level {
    text: Text,
    hash: u32,
    uses: u32,
}

/// Short texts lie in the table itself.
#[derive(Debug)]
enum Text {
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl Text {
    fn new(text: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short(length, bytes)
            }
            _ => Self::Long(text.as_bytes().into()),
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)) == Some(text.as_bytes()),
            Self::Long(long) => **long == *text.as_bytes(),
        }
    }
}

impl Levels {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, index: Index::default(), entries: Vec::new(), free: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn heap_entries(&self) -> usize {
        self.entries.capacity() + self.free.capacity()
    }

    /// The number of a text, [`NONE`] if no filter has it.
    pub(super) fn number(&self, text: &str) -> u32 {
        self.find(hash_text(self.seed, text), text).unwrap_or(NONE)
    }

    /// The number of a text, which is used once more from now on.
    pub(super) fn acquire(&mut self, text: &str) -> u32 {
        let hash = hash_text(self.seed, text);
        let number = self.find(hash, text).unwrap_or_else(|| {
            let number = take_slot(&mut self.entries, &mut self.free, Level { text: Text::new(text), hash, uses: 0 });
            self.index.insert(hash, number);
            number
        });
        if let Some(level) = self.entries.get_mut(number as usize) {
            level.uses += 1;
        }
        number
    }

    /// One use less; the text goes with the last one.
    pub(super) fn release(&mut self, number: u32) {
        let Some(level) = self.entries.get_mut(number as usize) else { return };
        level.uses -= 1;
        if level.uses == 0 {
            level.text = Text::Short(0, [0; SHORT_BYTES]);
            self.index.remove(level.hash, number);
            self.free.push(number);
            if self.free.len() == self.entries.len() {
                *self = Self::new(self.seed);
            }
        }
    }

    fn find(&self, hash: u32, text: &str) -> Option<u32> {
        self.index.find(hash, |n| self.entries.get(n as usize).is_some_and(|l| l.text.is(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_takes_32_bytes() {
        assert_eq!(size_of::<Level>(), 32);
    }

    #[test]
    fn a_text_lives_as_long_as_it_is_used() {
        let mut levels = Levels::new(3);
        let long = "x".repeat(40);
        let (a, b) = (levels.acquire("a"), levels.acquire(&long));
        assert_eq!((levels.acquire("a"), levels.number(&long), levels.number("c")), (a, b, NONE));
        levels.release(a);
        assert_eq!(levels.number("a"), a);
        levels.release(a);
        assert_eq!(levels.number("a"), NONE);
        assert_eq!(levels.acquire("d"), a, "its number is used again");
    }
}
