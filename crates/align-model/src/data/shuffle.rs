//! Shuffling of a stream that does not fit into memory.

use std::num::NonZeroUsize;

use rand_chacha::ChaCha8Rng;

use super::order::below;

/// A stream in another order: each item is drawn from a window of those that come next.
///
/// A window of 1 keeps the order, one as long as the stream is a full shuffle. Errors are not held back.
#[derive(Debug, Clone)]
pub struct ShuffleWindow<I, T> {
    items: I,
    window: usize,
    held: Vec<T>,
    rng: ChaCha8Rng,
}

impl<I, T> ShuffleWindow<I, T> {
    /// Shuffles `items`, of which it holds `window` in memory.
    #[must_use]
    pub fn new(items: I, window: NonZeroUsize, rng: ChaCha8Rng) -> Self {
        Self { items, window: window.get(), held: Vec::new(), rng }
    }

    /// The stream itself; what is held is lost.
    pub fn into_inner(self) -> I {
        self.items
    }
}

impl<I: Iterator<Item = Result<T, E>>, T, E> Iterator for ShuffleWindow<I, T> {
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.held.len() < self.window {
            match self.items.next() {
                Some(Ok(item)) => self.held.push(item),
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        if self.held.is_empty() {
            return None;
        }
        let drawn = below(&mut self.rng, self.held.len());
        Some(Ok(self.held.swap_remove(drawn)))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use super::{super::order::pass_rng, *};

    fn shuffled(count: usize, window: usize, seed: u64) -> Vec<usize> {
        let items = (0..count).map(Ok::<_, Infallible>);
        let window = NonZeroUsize::new(window).unwrap();
        ShuffleWindow::new(items, window, pass_rng(seed, 0)).map(Result::unwrap).collect()
    }

    #[test]
    fn every_item_comes_once() {
        for window in [1, 2, 7, 100, 1000] {
            let mut items = shuffled(100, window, 3);
            assert_eq!(items == (0..100).collect::<Vec<_>>(), window == 1);
            items.sort_unstable();
            assert_eq!(items, (0..100).collect::<Vec<_>>());
        }
        assert_eq!(shuffled(0, 5, 3), [0_usize; 0]);
        assert_eq!(shuffled(50, 10, 3), shuffled(50, 10, 3));
        assert_ne!(shuffled(50, 10, 3), shuffled(50, 10, 4));
    }

    #[test]
    fn a_window_as_long_as_the_stream_is_a_full_shuffle() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(shuffled(3, 3, seed)).or_insert(0_usize) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (880..1120).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_more_than_the_window_is_held() {
        let taken = Cell::new(0_usize);
        let items = (0..100_000).map(Ok::<_, Infallible>).inspect(|_| taken.set(taken.get() + 1));
        let window = NonZeroUsize::new(64).unwrap();
        for (seen, _) in ShuffleWindow::new(items, window, pass_rng(0, 0)).enumerate() {
            assert!(taken.get() <= seen + 64, "{seen}");
        }
    }

    #[test]
    fn errors_are_not_held_back() {
        let items = [Ok(1), Ok(2), Err("bad"), Ok(3)].into_iter();
        let mut shuffled = ShuffleWindow::new(items, NonZeroUsize::new(10).unwrap(), pass_rng(0, 0));
        assert_eq!(shuffled.next(), Some(Err("bad")));
        assert_eq!(shuffled.count(), 3);
    }
}
