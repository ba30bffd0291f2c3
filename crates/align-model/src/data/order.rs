//! The order in which samples are seen: shuffled anew for each pass, the same for the same seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// An endless sequence of batches of sample indices. Every pass sees each sample once; its last batch may be smaller.
#[derive(Debug, Clone)]
pub struct ShuffledBatches {
    samples: usize,
    batch_size: usize,
    seed: u64,
    pass: u64,
    order: Vec<usize>,
    next: usize,
}

impl ShuffledBatches {
    /// The order that belongs to a seed.
    ///
    /// # Panics
    /// If there are no samples or batches are empty.
    #[must_use]
    pub fn new(samples: usize, batch_size: usize, seed: u64) -> Self {
        assert!(samples > 0 && batch_size > 0, "an order needs samples and batches that are not empty");
        let mut batches = Self { samples, batch_size, seed, pass: 0, order: Vec::new(), next: 0 };
        batches.shuffle();
        batches
    }

    /// Orders the samples for the current pass: Fisher and Yates with a stream of its own for each pass.
    fn shuffle(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.pass);
        self.order = (0..self.samples).collect();
        for last in (1..self.samples).rev() {
            // The bias of the remainder is below 2⁻³² for any data set that fits a disk.
            let other = (rng.next_u64() % (last as u64 + 1)) as usize;
            self.order.swap(last, other);
        }
        self.next = 0;
    }
}

impl Iterator for ShuffledBatches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.next == self.samples {
            self.pass += 1;
            self.shuffle();
        }
        let end = (self.next + self.batch_size).min(self.samples);
        let batch = self.order[self.next..end].to_vec();
        self.next = end;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_sees_every_sample_once_and_passes_differ() {
        let batches: Vec<Vec<usize>> = ShuffledBatches::new(10, 4, 7).take(6).collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        let pass = |which: usize| batches[3 * which..3 * which + 3].concat();
        for which in 0..2 {
            let mut seen = pass(which);
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(pass(0), pass(1));
    }

    #[test]
    fn the_seed_decides() {
        let order = |seed| ShuffledBatches::new(50, 50, seed).next();
        assert_eq!(order(3), order(3));
        assert_ne!(order(3), order(4));
    }
}
