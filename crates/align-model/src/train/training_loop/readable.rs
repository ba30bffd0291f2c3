//! Batches that can always be read.

use std::convert::Infallible;

/// Batches as results. `nth` stays that of the batches: who resumes need not make what is skipped.
pub(super) struct Readable<T>(pub(super) T);

impl<T: Iterator> Iterator for Readable<T> {
    type Item = Result<T::Item, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.0.nth(n).map(Ok)
    }
}
