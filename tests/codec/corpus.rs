//! `fuzz/corpus` replayed on stable Rust, and a short random run of the same checks.

use std::path::Path;

use super::{checks, vectors};

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 4] =
    [("head", checks::head), ("decode", checks::decode), ("roundtrip", checks::roundtrip), ("topic", checks::topic)];

#[test]
fn every_corpus_replays() {
    for (target, check) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut replayed = 0;
        for entry in entries {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0, "the corpus of {target} is empty");
    }
}

/// Half mutated vectors, half noise; the same every time.
#[test]
fn random_bytes_keep_the_promises() {
    let seeds: Vec<_> = vectors::all().into_iter().map(|vector| vector.bytes).collect();
    let mut random = SplitMix(0x6d69_6c6c_7261_6365);
    for round in 0..40_000 {
        let mut bytes = vec![random.byte()];
        if round % 2 == 0 {
            bytes.extend_from_slice(&seeds[random.below(seeds.len())]);
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.byte(),
                    1 => bytes.insert(at, random.byte()),
                    _ => bytes[at] ^= 1 << random.below(8),
                }
            }
        } else {
            // A frame of the right length with noise in it.
            let body_bytes = random.below(100);
            bytes.push(random.byte());
            bytes.push(u8::try_from(body_bytes).unwrap());
            bytes.extend((0..body_bytes).map(|_| random.byte()));
        }
        for (_, check) in TARGETS {
            check(&bytes);
        }
    }
}

/// `SplitMix64`: a few lines of repeatable noise.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
