//! What evaluation data has in common with training data.
//!
//! # Source
//! Contamination by n-grams of normalised words: Brown et al. 2020, *Language Models are Few-Shot Learners*,
//! [arXiv:2005.14165](https://arxiv.org/abs/2005.14165), appendix C (an evaluation record is touched if it shares a 13-gram;
//! shorter records are compared as wholes, down to 8 words); Chowdhery et al. 2022, *`PaLM`*,
//! [arXiv:2204.02311](https://arxiv.org/abs/2204.02311), §8 (contaminated if 70 % of its 8-grams occur).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::{
    minhash::{MinHash, buckets},
    row::{Inspected, InspectedRow, Place},
    words::{grams, word_hashes, words},
};
use crate::data::Located;

/// What evaluation records and training records have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overlap {
    /// Evaluation records.
    pub evaluation_records: usize,
    /// Those whose words, in their order, are those of a training record.
    pub exact: Vec<OverlapMatch>,
    /// Those that are nearly like a training record; the one that is most alike.
    pub near: Vec<OverlapMatch>,
    /// Runs of words that occur in the training data.
    pub ngrams: NgramOverlap,
}

/// An evaluation record and a training record that is like it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverlapMatch {
    /// The evaluation record.
    pub evaluation: Place,
    /// The training record; the first, if there are several.
    pub training: Place,
    /// Their Jaccard similarity.
    pub similarity: f64,
}

/// Evaluation records that are contained in the training data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NgramOverlap {
    /// Words of an n-gram; a record that has fewer is one n-gram.
    pub words: usize,
    /// Evaluation records that are long enough to say.
    pub compared: usize,
    /// Those that are too short.
    pub too_short: usize,
    /// Those with at least one n-gram that occurs in the training data.
    pub touched: usize,
    /// Those with at least 70 % of their n-grams there.
    pub contained: usize,
    /// Those that are touched, the most contained first.
    pub records: Vec<Contained>,
}

/// An evaluation record, part of which occurs in the training data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contained {
    /// The evaluation record.
    pub evaluation: Place,
    /// Share of its n-grams that occur in the training data.
    pub share: f64,
    /// The first of them.
    pub example: String,
    /// The first training record that has one.
    pub training: Place,
}

/// Records with fewer words are not looked for, unless the n-grams are shorter still.
const SHORTEST: usize = 8;
const CONTAINED: f64 = 0.7;

impl Overlap {
    /// Evaluation records that are in the training data: equal, nearly equal, or contained.
    #[must_use]
    pub fn contaminated(&self) -> usize {
        let alike = self.exact.iter().chain(&self.near).map(|found| &found.evaluation);
        let contained = self.ngrams.records.iter().filter(|record| record.share >= CONTAINED);
        alike.chain(contained.map(|record| &record.evaluation)).collect::<BTreeSet<_>>().len()
    }
}

/// Compares evaluation records with training records.
pub(super) fn overlap<R: Inspected>(
    training: &[&Located<InspectedRow<R>>],
    evaluation: &[Located<InspectedRow<R>>],
    hashes: &MinHash,
    ngram_words: usize,
) -> Overlap {
    let evaluation: Vec<_> = evaluation.iter().collect();
    let exact = exact(training, &evaluation);
    let equal: BTreeSet<&Place> = exact.iter().map(|found| &found.evaluation).collect();
    let others: Vec<_> = evaluation.iter().copied().filter(|row| !equal.contains(&Place::of(row))).collect();
    Overlap {
        evaluation_records: evaluation.len(),
        near: near(training, &others, hashes),
        ngrams: ngrams(training, &evaluation, ngram_words),
        exact,
    }
}

fn exact<R: Inspected>(
    training: &[&Located<InspectedRow<R>>],
    evaluation: &[&Located<InspectedRow<R>>],
) -> Vec<OverlapMatch> {
    let whole = |row: &Located<InspectedRow<R>>| {
        let words = word_hashes(&row.record.text);
        grams(&words, words.len()).first().copied()
    };
    let mut first: HashMap<u64, usize> = HashMap::new();
    for (index, row) in training.iter().enumerate() {
        if let Some(hash) = whole(row) {
            first.entry(hash).or_insert(index);
        }
    }
    let matched = |row: &&Located<InspectedRow<R>>| {
        let training = Place::of(training[*first.get(&whole(row)?)?]);
        Some(OverlapMatch { evaluation: Place::of(row), training, similarity: 1.0 })
    };
    evaluation.iter().filter_map(matched).collect()
}

fn near<R: Inspected>(
    training: &[&Located<InspectedRow<R>>],
    evaluation: &[&Located<InspectedRow<R>>],
    hashes: &MinHash,
) -> Vec<OverlapMatch> {
    let (training_texts, evaluation_texts) = (texts(training), texts(evaluation));
    let known = buckets(&hashes.bands(&evaluation_texts));
    let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (index, bands) in hashes.bands(&training_texts).iter().enumerate() {
        let met = bands.iter().filter_map(|band| known.get(band)).flatten();
        pairs.extend(met.map(|&record| (record, index)));
    }
    let mut best: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
    for (record, index) in pairs {
        let Some(similarity) = hashes.alike(evaluation_texts[record], training_texts[index]) else {
            continue;
        };
        let most = best.entry(record).or_insert((similarity, index));
        if similarity > most.0 {
            *most = (similarity, index);
        }
    }
    best.into_iter()
        .map(|(record, (similarity, index))| OverlapMatch {
            evaluation: Place::of(evaluation[record]),
            training: Place::of(training[index]),
            similarity,
        })
        .collect()
}

fn texts<'a, R: Inspected>(rows: &[&'a Located<InspectedRow<R>>]) -> Vec<&'a str> {
    rows.iter().map(|row| row.record.text.as_str()).collect()
}

fn ngrams<R: Inspected>(
    training: &[&Located<InspectedRow<R>>],
    evaluation: &[&Located<InspectedRow<R>>],
    length: usize,
) -> NgramOverlap {
    let hashes: Vec<Vec<u64>> = evaluation.iter().map(|row| word_hashes(&row.record.text)).collect();
    let shortest = SHORTEST.min(length);
    // The n-grams that are looked for, by their length, with the first training record that has each.
    let mut wanted: BTreeMap<usize, HashMap<u64, Option<usize>>> = BTreeMap::new();
    for words in hashes.iter().filter(|words| words.len() >= shortest) {
        let length = length.min(words.len());
        let of_length = wanted.entry(length).or_default();
        of_length.extend(grams(words, length).into_iter().map(|gram| (gram, None)));
    }
    for (index, row) in training.iter().enumerate() {
        let words = word_hashes(&row.record.text);
        for (&length, wanted) in wanted.iter_mut().filter(|(length, _)| **length <= words.len()) {
            for gram in grams(&words, length) {
                wanted.entry(gram).and_modify(|first| *first = first.or(Some(index)));
            }
        }
    }
    let compared = hashes.iter().filter(|words| words.len() >= shortest).count();
    let found = evaluation.iter().zip(&hashes).filter_map(|(row, words)| {
        let length = length.min(words.len());
        let (share, at, first) = contained(&grams(words, length), wanted.get(&length)?)?;
        let example = self::words(&row.record.text)[at..at + length].join(" ");
        Some(Contained { evaluation: Place::of(row), share, example, training: Place::of(training[first]) })
    });
    let mut records: Vec<Contained> = found.collect();
    records.sort_by(|a, b| b.share.total_cmp(&a.share));
    NgramOverlap {
        words: length,
        compared,
        too_short: evaluation.len() - compared,
        touched: records.len(),
        contained: records.iter().filter(|record| record.share >= CONTAINED).count(),
        records,
    }
}

/// Share of the n-grams that training records have, the first of these n-grams, and the first record that has it.
fn contained(grams: &[u64], found: &HashMap<u64, Option<usize>>) -> Option<(f64, usize, usize)> {
    let hits = || {
        let records = grams.iter().map(|gram| found.get(gram).copied().flatten());
        records.enumerate().filter_map(|(at, record)| Some((at, record?)))
    };
    let (at, record) = hits().next()?;
    Some((hits().count() as f64 / grams.len() as f64, at, record))
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::data::SftRecord;

    fn rows(file: &str, texts: &[&str]) -> Vec<Located<InspectedRow>> {
        let row = |(index, text): (usize, &&str)| Located {
            path: Arc::from(Path::new(file)),
            line: index + 1,
            record: InspectedRow {
                record: Ok(SftRecord::Text { text: (*text).into() }),
                text: (*text).into(),
            },
            extra: serde_json::Map::new(),
            source: 0,
        };
        texts.iter().enumerate().map(row).collect()
    }

    fn compare(training: &[&str], evaluation: &[&str], ngram_words: usize) -> Overlap {
        let (training, evaluation) = (rows("train", training), rows("eval", evaluation));
        overlap(&training.iter().collect::<Vec<_>>(), &evaluation, &MinHash::new(0.8, 5, 0), ngram_words)
    }

    fn places(matches: &[OverlapMatch]) -> Vec<(usize, usize)> {
        matches.iter().map(|found| (found.evaluation.line, found.training.line)).collect()
    }

    #[test]
    fn planted_overlap_is_found() {
        let long = |name: &str| (0..60).map(|i| format!("{name}{i}")).collect::<Vec<_>>().join(" ");
        let (a, b, c) = (long("a"), long("b"), long("c"));
        let nearly = format!("{b} once more");
        let found = compare(
            &["something else", &a, &b],
            &[&a.to_uppercase(), &nearly, &c, "What is the capital of France?"],
            13,
        );
        assert_eq!(found.evaluation_records, 4);
        assert_eq!(places(&found.exact), [(1, 2)]);
        assert_eq!(places(&found.near), [(2, 3)]);
        assert!((found.near[0].similarity - 56.0 / 58.0).abs() < 1e-9);
        let ngrams = found.ngrams;
        assert_eq!((ngrams.compared, ngrams.too_short, ngrams.touched, ngrams.contained), (3, 1, 2, 2));
    }

    #[test]
    fn a_question_inside_a_longer_text_is_found() {
        let question = "how many legs does a spider have if it lost two of them yesterday";
        let page = format!("Riddles. First: {question}? The answer is below.");
        let half = format!("{question} and what would its grandmother have said about all of this if asked");
        let found = compare(
            &["nothing", &page],
            &[question, &half, "a wholly different question about the weather"],
            13,
        );
        let lines: Vec<usize> = found.ngrams.records.iter().map(|record| record.evaluation.line).collect();
        assert_eq!(lines, [1, 2]);
        let first = &found.ngrams.records[0];
        assert!((first.share - 1.0).abs() < 1e-12 && first.training.line == 2);
        assert_eq!(first.example, "how many legs does a spider have if it lost two of them");
        assert!(found.ngrams.records[1].share < 0.2);
        assert_eq!(found.ngrams.contained, 1);
        assert!(found.exact.is_empty() && found.near.is_empty());
    }

    #[test]
    fn a_short_record_is_looked_for_as_a_whole() {
        let found = compare(
            &["x y one two three four five six seven eight z"],
            &["One two three, four five six seven eight.", "one two three four five six seven nine"],
            13,
        );
        assert_eq!(found.ngrams.records.len(), 1);
        assert_eq!(found.ngrams.compared, 2);
    }
}
