//! Packing: several samples in one row, so that rows are about equally long.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    ops::Range,
};

use serde::{Deserialize, Serialize};

use super::{SftConfig, SftExample};
use crate::data::ShuffledBatches;

/// How samples are put together into rows of at most `max_length` tokens; the names are TRL's.
///
/// # Source
/// Ding et al. 2024, *Fewer Truncations Improve Language Modeling*, [arXiv:2404.10830](https://arxiv.org/abs/2404.10830);
/// as `pack_dataset` in TRL, [data_utils.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/data_utils.py). TRL packs
/// every 1000 samples by themselves unless told otherwise; here all that are given are packed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Packing {
    /// `bfd`: the longest samples first, each into the fullest row that has room. Samples stay apart, each attending
    /// only to itself; what is longer than a row is cut.
    #[serde(rename = "bfd")]
    BestFitDecreasing,
    /// `bfd_split`: the same, but what is longer than a row becomes several samples, so that no token is lost.
    #[serde(rename = "bfd_split")]
    BestFitDecreasingSplit,
    /// `wrapped`: one sample after the other, cut wherever a row is full. A row is one sequence whose tokens attend to
    /// everything before them, other samples' tokens too.
    #[serde(rename = "wrapped")]
    Wrapped,
}

/// Consecutive tokens of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Which sample.
    pub sample: usize,
    /// Which of its tokens; never empty.
    pub tokens: Range<usize>,
}

/// What a batch counts as one: a sample, or several that were packed together.
///
/// Sequences of a row do not see each other: each starts at position 0, and its first token carries no loss.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SftRow {
    /// The sequences, end to end.
    pub sequences: Vec<SftExample>,
}

impl SftRow {
    /// Number of tokens of all sequences.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens.len()).sum()
    }

    /// Number of tokens that carry a loss.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.sequences.iter().map(SftExample::targets).sum()
    }
}

impl From<SftExample> for SftRow {
    fn from(example: SftExample) -> Self {
        Self { sequences: vec![example] }
    }
}

/// The rows of a run: its samples one by one or packed, as the settings say. What is packed is shuffled first, because
/// neighbours in a file tend to be alike; rows in which nothing carries a loss are left out.
#[must_use]
pub fn rows(examples: Vec<SftExample>, config: &SftConfig) -> Vec<SftRow> {
    let Some(packing) = config.packing.filter(|_| !examples.is_empty()) else {
        return examples.into_iter().map(SftRow::from).collect();
    };
    let order = ShuffledBatches::new(examples.len(), examples.len(), config.seed).next().unwrap_or_default();
    let shuffled: Vec<&SftExample> = order.into_iter().map(|index| &examples[index]).collect();
    let mut rows = packing.pack(&shuffled, config.max_length);
    rows.retain(|row| row.targets() > 0);
    rows
}

impl Packing {
    /// Whether samples longer than a row go on in another one.
    #[must_use]
    pub fn keeps_every_token(self) -> bool {
        match self {
            Self::BestFitDecreasing => false,
            Self::BestFitDecreasingSplit | Self::Wrapped => true,
        }
    }

    /// Which tokens of which sample lie in which row, for samples of these lengths. Empty samples lie in none.
    #[must_use]
    pub fn pack_lengths(self, lengths: &[usize], row_length: NonZeroUsize) -> Vec<Vec<Fragment>> {
        let row_length = row_length.get();
        match self {
            Self::BestFitDecreasing => best_fit_decreasing(cut(lengths, row_length), row_length),
            Self::BestFitDecreasingSplit => best_fit_decreasing(split(lengths, row_length), row_length),
            Self::Wrapped => wrap(lengths, row_length),
        }
    }

    /// Packs samples.
    #[must_use]
    pub fn pack<E: AsRef<SftExample>>(self, examples: &[E], row_length: NonZeroUsize) -> Vec<SftRow> {
        let lengths: Vec<usize> = examples.iter().map(|example| example.as_ref().tokens.len()).collect();
        let row = |fragments: Vec<Fragment>| {
            let pieces = fragments.into_iter().map(|Fragment { sample, tokens }| {
                let whole = examples[sample].as_ref();
                SftExample {
                    tokens: whole.tokens[tokens.clone()].to_vec(),
                    is_target: whole.is_target[tokens].to_vec(),
                }
            });
            match self {
                Self::BestFitDecreasing | Self::BestFitDecreasingSplit => {
                    SftRow { sequences: pieces.collect() }
                }
                Self::Wrapped => joined(pieces).into(),
            }
        };
        self.pack_lengths(&lengths, row_length).into_iter().map(row).collect()
    }
}

/// One sequence of several.
fn joined(pieces: impl Iterator<Item = SftExample>) -> SftExample {
    let mut whole = SftExample { tokens: Vec::new(), is_target: Vec::new() };
    for piece in pieces {
        whole.tokens.extend(piece.tokens);
        whole.is_target.extend(piece.is_target);
    }
    whole
}

/// The beginning of every sample.
fn cut(lengths: &[usize], row_length: usize) -> Vec<Fragment> {
    let fragments = lengths.iter().enumerate();
    let fragments = fragments.map(|(sample, &length)| Fragment { sample, tokens: 0..length.min(row_length) });
    fragments.filter(|fragment| !fragment.tokens.is_empty()).collect()
}

/// Every sample in pieces that fit a row, all but its last as long as one.
fn split(lengths: &[usize], row_length: usize) -> Vec<Fragment> {
    let pieces = |(sample, &length): (usize, &usize)| {
        (0..length).step_by(row_length).map(move |start| Fragment {
            sample,
            tokens: start..length.min(start.saturating_add(row_length)),
        })
    };
    lengths.iter().enumerate().flat_map(pieces).collect()
}

/// Puts each fragment, the longest first, into the row with the least room that is enough; of several such rows, into the
/// one that has had this much room for the longest time.
fn best_fit_decreasing(mut fragments: Vec<Fragment>, row_length: usize) -> Vec<Vec<Fragment>> {
    fragments.sort_by_key(|fragment| Reverse(fragment.tokens.len()));
    let mut rows: Vec<Vec<Fragment>> = Vec::new();
    let mut with_room: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for fragment in fragments {
        let length = fragment.tokens.len();
        let (row, room) = match with_room.range_mut(length..).next() {
            Some((&room, waiting)) => {
                let first = waiting.pop_front();
                if waiting.is_empty() {
                    with_room.remove(&room);
                }
                first.map_or((rows.len(), row_length), |row| (row, room))
            }
            None => (rows.len(), row_length),
        };
        if row == rows.len() {
            rows.push(Vec::new());
        }
        rows[row].push(fragment);
        if room > length {
            with_room.entry(room - length).or_default().push_back(row);
        }
    }
    rows
}

/// Fills row after row.
fn wrap(lengths: &[usize], row_length: usize) -> Vec<Vec<Fragment>> {
    let mut rows: Vec<Vec<Fragment>> = Vec::new();
    let mut room = 0;
    for (sample, &length) in lengths.iter().enumerate() {
        let mut start = 0;
        while start < length {
            if room == 0 {
                rows.push(Vec::new());
                room = row_length;
            }
            let end = length.min(start.saturating_add(room));
            if let Some(row) = rows.last_mut() {
                row.push(Fragment { sample, tokens: start..end });
            }
            room -= end - start;
            start = end;
        }
    }
    rows
}
