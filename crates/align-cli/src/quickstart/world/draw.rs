//! Random choices.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;

/// A number below `bound`.
pub(super) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

/// Brings `items` into a random order.
pub(super) fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

/// Several of `words`, all different, in random order.
pub(super) fn several<'a, const COUNT: usize>(rng: &mut ChaCha8Rng, words: &[&'a str]) -> [&'a str; COUNT] {
    let mut words = words.to_vec();
    shuffle(rng, &mut words);
    std::array::from_fn(|index| words[index])
}
