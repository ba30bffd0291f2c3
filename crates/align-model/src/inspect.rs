//! Looking at training data before training on it: what is in the files, what a run would make of it, and what is
//! likely to be a mistake.
//!
//! [`inspect`] reads nothing and prints nothing; it takes rows that [`InspectedRow`] accepted as they are and returns an
//! [`Inspection`] that serialises. [`inspect_records`] looks at the texts of records of any [`Inspected`] kind.

mod conversation;
mod duplicates;
mod lengths;
mod minhash;
mod overlap;
mod row;
mod tokens;
mod words;

use std::{collections::BTreeMap, num::NonZeroUsize};

use serde::{Deserialize, Serialize};

pub use conversation::{OddConversation, Oddity, odd_conversations};
pub use duplicates::DuplicateGroup;
pub use lengths::{Bin, LengthStatistics, Percentile};
pub use overlap::{Contained, NgramOverlap, Overlap, OverlapMatch};
pub use row::{Inspected, InspectedRow, Layout, Place};
pub use tokens::{Flaw, PackingEfficiency, RenderedSample, Segment, TokenFindings, Truncated};
pub use words::words;

use crate::{
    data::{Located, RecordError},
    number::PositiveUnit,
    sft::SftTokenizer,
};

/// What an inspection asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InspectConfig {
    /// Jaccard similarity from which on two records are near-duplicates.
    pub similarity: PositiveUnit,
    /// Words of a shingle; similarity is that of the sets of shingles.
    pub shingle_words: NonZeroUsize,
    /// Words of an n-gram by which evaluation records are looked for in training records.
    pub ngram_words: NonZeroUsize,
    /// Samples to render.
    pub samples: usize,
    /// Seed of the hash functions.
    pub seed: u64,
}

impl Default for InspectConfig {
    fn default() -> Self {
        Self {
            similarity: PositiveUnit::new(0.8),
            shingle_words: NonZeroUsize::MIN.saturating_add(4),
            ngram_words: NonZeroUsize::MIN.saturating_add(12),
            samples: 3,
            seed: 0,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Rows of the training files.
    pub records: usize,
    /// How many rows have which layout.
    pub layouts: BTreeMap<Layout, usize>,
    /// Columns that are not used, and in how many rows they stand.
    pub unused_columns: BTreeMap<String, usize>,
    /// Rows that cannot be trained on, but conversations without an assistant, which are among the odd ones.
    pub refused: Vec<Flaw>,
    /// Records with odd turns.
    pub conversations: Vec<OddConversation>,
    /// Characters of the records' texts.
    pub characters: LengthStatistics,
    /// Words of the records' texts.
    pub words: LengthStatistics,
    /// What a tokenizer makes of them, if there is one.
    pub tokens: Option<TokenFindings>,
    /// Records that are equal.
    pub exact_duplicates: Vec<DuplicateGroup>,
    /// Records that are nearly equal.
    pub near_duplicates: Vec<DuplicateGroup>,
    /// What evaluation records have in common with these, if there are any.
    pub overlap: Option<Overlap>,
}

/// A kind of mistake that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// How many records have it.
    pub records: usize,
}

/// What is likely to be a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// Rows that cannot be trained on.
    Refused,
    /// Records with odd turns.
    OddConversations,
    /// Records that cannot be tokenised.
    NotTokenised,
    /// Samples that carry no loss.
    WithoutLoss,
    /// Prompts that end inside a token.
    UnevenBoundaries,
    /// Pairs that prefer a completion to itself.
    IdenticalPairs,
    /// Completions that say nothing.
    EmptyCompletions,
    /// Records of which nothing is learnt because of their lengths.
    LeftOut,
    /// Judgements that contradict others.
    Contradictions,
    /// Batches in which all completions are judged alike.
    OneSidedBatches,
    /// Records that repeat another one.
    ExactDuplicates,
    /// Records that nearly repeat another one.
    NearDuplicates,
    /// Evaluation records that are in the training data: equal, nearly equal, or contained.
    Contamination,
}

impl Inspection {
    /// The kinds of mistakes that were found.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let of_tokens = |count: fn(&TokenFindings) -> usize| self.tokens.as_ref().map_or(0, count);
        let repeated = |groups: &[DuplicateGroup]| groups.iter().map(|group| group.places.len() - 1).sum();
        let found = [
            (ProblemKind::Refused, self.refused.len()),
            (ProblemKind::OddConversations, self.conversations.len()),
            (ProblemKind::NotTokenised, of_tokens(|tokens| tokens.failed.len())),
            (ProblemKind::WithoutLoss, of_tokens(|tokens| tokens.without_loss.len())),
            (ProblemKind::UnevenBoundaries, of_tokens(|tokens| tokens.uneven_boundaries.len())),
            (ProblemKind::ExactDuplicates, repeated(&self.exact_duplicates)),
            (ProblemKind::NearDuplicates, repeated(&self.near_duplicates)),
            (ProblemKind::Contamination, self.overlap.as_ref().map_or(0, Overlap::contaminated)),
        ];
        let found = found.into_iter().filter(|(_, records)| *records > 0);
        found.map(|(kind, records)| Problem { kind, records }).collect()
    }
}

/// Looks at demonstrations, and at evaluation rows that should have nothing in common with them. Without a tokenizer only
/// texts are looked at.
#[must_use]
pub fn inspect(
    training: &[Located<InspectedRow>],
    evaluation: &[Located<InspectedRow>],
    tokenizer: Option<&SftTokenizer<'_>>,
    config: &InspectConfig,
) -> Inspection {
    let tokens =
        tokenizer.map(|tokenizer| tokens::token_findings(&usable(training), tokenizer, config.samples));
    Inspection { tokens, ..inspect_records(training, evaluation, config) }
}

/// As [`inspect`], of the texts of records of any kind.
#[must_use]
pub fn inspect_records<R: Inspected>(
    training: &[Located<InspectedRow<R>>],
    evaluation: &[Located<InspectedRow<R>>],
    config: &InspectConfig,
) -> Inspection {
    let mut layouts = BTreeMap::new();
    for row in training {
        *layouts.entry(Layout::of(&row.record)).or_insert(0) += 1;
    }
    let usable = usable(training);
    let hashes = minhash::MinHash::new(config.similarity.get(), config.shingle_words.get(), config.seed);
    let exact_duplicates = duplicates::exact_duplicates(&usable);
    let lengths = |length: fn(&str) -> usize| {
        LengthStatistics::of(&usable.iter().map(|row| length(&row.record.text)).collect::<Vec<_>>())
    };
    Inspection {
        records: training.len(),
        layouts,
        unused_columns: unused_columns(&usable),
        refused: training.iter().filter_map(refusal).collect(),
        conversations: odd_conversations(training),
        characters: lengths(|text| text.chars().count()),
        words: lengths(|text| words(text).len()),
        tokens: None,
        near_duplicates: duplicates::near_duplicates(&usable, &exact_duplicates, &hashes),
        exact_duplicates,
        overlap: (!evaluation.is_empty())
            .then(|| overlap::overlap(&usable, evaluation, &hashes, config.ngram_words.get())),
    }
}

/// The rows that are records.
fn usable<R>(rows: &[Located<InspectedRow<R>>]) -> Vec<&Located<InspectedRow<R>>> {
    rows.iter().filter(|row| row.record.record.is_ok()).collect()
}

fn refusal<R>(row: &Located<InspectedRow<R>>) -> Option<Flaw> {
    match &row.record.record {
        Ok(_) | Err(RecordError::NoAssistant { .. }) => None,
        Err(problem) => Some(Flaw { place: Place::of(row), problem: problem.to_string() }),
    }
}

/// As [`extra_columns`](crate::data::extra_columns), of some of the rows.
fn unused_columns<R>(rows: &[&Located<InspectedRow<R>>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for column in rows.iter().flat_map(|row| row.extra.keys()) {
        *counts.entry(column.clone()).or_insert(0) += 1;
    }
    counts
}
