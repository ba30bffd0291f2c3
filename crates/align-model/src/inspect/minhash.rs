//! Sets that are much alike, found without comparing all pairs.
//!
//! A signature keeps, for each of many hash functions, the smallest value over a set; two sets agree at a place with the
//! probability of their Jaccard similarity. Signatures are cut into bands, and only sets that agree in a whole band are
//! compared, so alike sets are found almost surely and others hardly ever looked at.
//!
//! # Source
//! Broder 1997, *On the resemblance and containment of documents*; bands: Leskovec, Rajaraman and Ullman, *Mining of
//! Massive Datasets*, §3.4. Word 5-grams and a threshold of 0.8 as in Lee et al. 2021, *Deduplicating Training Data Makes
//! Language Models Better*, [arXiv:2107.06499](https://arxiv.org/abs/2107.06499).

use std::collections::HashMap;

use rayon::prelude::*;

use super::words::{grams, mix, word_hashes};

/// Hash functions a signature.
const FUNCTIONS: usize = 128;
/// A pair exactly as alike as the threshold is found with at least this probability.
const RECALL: f64 = 0.99;

/// Finds sets that are alike.
#[derive(Debug, Clone)]
pub(super) struct MinHash {
    threshold: f64,
    shingle_words: usize,
    /// Places of a band.
    rows: usize,
    functions: Vec<u64>,
}

/// A text's hash in each band; empty for a text without words.
pub(super) type Bands = Vec<u64>;

impl MinHash {
    /// For texts whose runs of `shingle_words` words have this Jaccard similarity or a higher one.
    pub(super) fn new(threshold: f64, shingle_words: usize, seed: u64) -> Self {
        let found = |rows: usize| 1.0 - (1.0 - threshold.powi(rows as i32)).powi((FUNCTIONS / rows) as i32);
        // Longer bands admit fewer strangers.
        let rows = (1..=16).rev().find(|&rows| found(rows) >= RECALL).unwrap_or(1);
        let functions = (1..=FUNCTIONS as u64).map(|i| mix(seed.wrapping_add(i.wrapping_mul(GOLDEN))));
        Self { threshold, shingle_words, rows, functions: functions.collect() }
    }

    /// The bands of each text.
    pub(super) fn bands<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Vec<Bands> {
        texts.par_iter().map(|text| self.bands_of(text.as_ref())).collect()
    }

    fn bands_of(&self, text: &str) -> Bands {
        let shingles = self.shingles(text);
        if shingles.is_empty() {
            return Vec::new();
        }
        let smallest = |&function: &u64| {
            shingles.iter().map(|&shingle| mix(shingle ^ function)).min().unwrap_or(u64::MAX)
        };
        let signature: Vec<u64> = self.functions.iter().map(smallest).collect();
        let band = |(index, places): (usize, &[u64])| {
            places.iter().fold(index as u64, |state, &value| mix(state.wrapping_mul(GOLDEN) ^ value))
        };
        signature.chunks_exact(self.rows).enumerate().map(band).collect()
    }

    /// The distinct shingles of a text, sorted.
    fn shingles(&self, text: &str) -> Vec<u64> {
        let mut shingles = grams(&word_hashes(text), self.shingle_words);
        shingles.sort_unstable();
        shingles.dedup();
        shingles
    }

    /// The Jaccard similarity of two texts, where it reaches the threshold.
    pub(super) fn alike(&self, a: &str, b: &str) -> Option<f64> {
        let similarity = jaccard(&self.shingles(a), &self.shingles(b));
        (similarity >= self.threshold).then_some(similarity)
    }
}

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which texts have a band's hash, for every band in which at least one does.
pub(super) fn buckets(bands: &[Bands]) -> HashMap<u64, Vec<usize>> {
    let mut buckets: HashMap<u64, Vec<usize>> = HashMap::new();
    for (text, bands) in bands.iter().enumerate() {
        for &band in bands {
            buckets.entry(band).or_default().push(text);
        }
    }
    buckets
}

/// |A ∩ B| / |A ∪ B| of sorted sets.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(from: usize, to: usize) -> String {
        (from..to).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn similarity_is_counted() {
        let hashes = MinHash::new(0.1, 1, 0);
        assert!((hashes.alike(&text(0, 10), &text(5, 15)).unwrap() - 5.0 / 15.0).abs() < 1e-12);
        assert_eq!(hashes.alike(&text(0, 10), &text(10, 20)), None);
        assert_eq!(hashes.alike("", ""), None);
    }

    #[test]
    fn alike_texts_share_a_band_and_others_do_not() {
        let hashes = MinHash::new(0.8, 5, 1);
        let share = |a: &str, b: &str| {
            let bands = hashes.bands(&[a, b]);
            bands[0].iter().zip(&bands[1]).any(|(a, b)| a == b)
        };
        let trials = 200;
        // Of 100 + 2·d shingles 100 are shared: 0.83.
        let alike = (0..trials).filter(|&i| share(&text(i, i + 104 + 10), &text(i + 10, i + 104 + 20)));
        assert!(alike.count() >= 195);
        let strangers = (0..trials).filter(|&i| share(&text(i, i + 104), &text(i + 70, i + 174)));
        assert!(strangers.count() <= 5);
    }

    #[test]
    fn the_seed_decides() {
        let bands = |seed| MinHash::new(0.8, 5, seed).bands(&[text(0, 30)]);
        assert_eq!(bands(1), bands(1));
        assert_ne!(bands(1), bands(2));
        assert!(MinHash::new(0.8, 5, 1).bands(&["?"])[0].is_empty());
    }
}
