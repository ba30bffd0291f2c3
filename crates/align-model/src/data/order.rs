//! The order in which samples are seen: shuffled anew for each pass, the same for the same seed.

use rand::{Rng as _, SeedableRng as _};
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

    /// How many batches came so far, skipped ones included.
    #[must_use]
    pub fn batches_taken(&self) -> usize {
        self.pass as usize * self.batches_a_pass() + self.next.div_ceil(self.batch_size)
    }

    /// Passes over the next `count` batches in the time of one shuffle: a run that took that many goes on from here.
    pub fn skip_batches(&mut self, count: usize) {
        let batches = self.batches_taken() + count;
        let pass = (batches / self.batches_a_pass()) as u64;
        if pass != self.pass {
            self.pass = pass;
            self.shuffle();
        }
        self.next = batches % self.batches_a_pass() * self.batch_size;
    }

    fn batches_a_pass(&self) -> usize {
        self.samples.div_ceil(self.batch_size)
    }

    /// Orders the samples for the current pass: Fisher and Yates with a stream of its own for each pass.
    fn shuffle(&mut self) {
        let mut rng = pass_rng(self.seed, self.pass);
        self.order = (0..self.samples).collect();
        for last in (1..self.samples).rev() {
            self.order.swap(last, below(&mut rng, last + 1));
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

    fn nth(&mut self, count: usize) -> Option<Self::Item> {
        self.skip_batches(count);
        self.next()
    }
}

/// The generator of one pass: a stream of its own for each.
pub(super) fn pass_rng(seed: u64, pass: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(pass);
    rng
}

/// A random number below `bound`.
pub(super) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    // The bias of the remainder is below 2⁻³² for any data set that fits a disk.
    (rng.next_u64() % bound as u64) as usize
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
    fn skipped_batches_are_those_that_would_have_come() {
        for (samples, batch_size) in [(10, 4), (8, 4), (3, 5), (1, 1)] {
            let all: Vec<Vec<usize>> = ShuffledBatches::new(samples, batch_size, 7).take(12).collect();
            for taken in 0..6 {
                for count in 0..6 {
                    let mut batches = ShuffledBatches::new(samples, batch_size, 7);
                    assert_eq!(batches.by_ref().take(taken).count(), taken);
                    batches.skip_batches(count);
                    assert_eq!(batches.batches_taken(), taken + count);
                    assert_eq!(batches.next().unwrap(), all[taken + count]);
                    assert_eq!(batches.batches_taken(), taken + count + 1);
                }
            }
            assert_eq!(ShuffledBatches::new(samples, batch_size, 7).nth(11).unwrap(), all[11]);
        }
    }

    #[test]
    fn the_seed_decides() {
        let order = |seed| ShuffledBatches::new(50, 50, seed).next();
        assert_eq!(order(3), order(3));
        assert_ne!(order(3), order(4));
    }
}
