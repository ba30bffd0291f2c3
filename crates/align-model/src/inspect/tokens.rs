//! What a model's tokenizer makes of the records: lengths, what is learnt, what would be cut.

use rayon::prelude::*;
use serde::Serialize;

use super::{
    lengths::LengthStatistics,
    row::{InspectedRow, Place},
};
use crate::{
    data::{Located, SftRecord},
    sft::{Packing, SftExample, SftRecordError, SftTokenizer, WholeSample},
    tokenizer::{SpecialTokenText, Tokenizer},
};

/// What fine-tuning would make of the records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenFindings {
    /// Tokens of the samples before anything is cut.
    pub lengths: LengthStatistics,
    /// Tokens that carry a loss, of all of these.
    pub targets: usize,
    /// Their share.
    pub target_share: f64,
    /// Tokens a sample may have.
    pub max_length: usize,
    /// What is beyond it.
    pub truncated: Truncated,
    /// Samples that carry no loss, cut to `max_length`.
    pub without_loss: Vec<Place>,
    /// Samples whose prompt, tokenised alone, is not how the whole begins.
    pub uneven_boundaries: Vec<Place>,
    /// Records that could not be tokenised.
    pub failed: Vec<Flaw>,
    /// How full rows of `max_length` tokens are.
    pub packing: Vec<PackingEfficiency>,
    /// Some of the samples, cut to `max_length`.
    pub samples: Vec<RenderedSample>,
}

/// What truncation takes away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// Samples that are cut.
    pub samples: usize,
    /// Tokens that are lost.
    pub tokens: usize,
    /// How many of them would have carried a loss.
    pub targets: usize,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it.
    pub problem: String,
}

/// How well rows are filled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PackingEfficiency {
    /// How samples are packed; `None` for a sample a row.
    pub packing: Option<Packing>,
    /// Rows.
    pub rows: usize,
    /// Tokens in them.
    pub tokens: usize,
    /// Tokens that are cut off and in no row.
    pub lost: usize,
    /// Share of the rows' room that is filled.
    pub filled: f64,
}

/// A sample as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenderedSample {
    /// The record.
    pub place: Place,
    /// Number of tokens.
    pub tokens: usize,
    /// Number of tokens that carry a loss.
    pub targets: usize,
    /// The text, in pieces.
    pub segments: Vec<Segment>,
}

/// Tokens one after the other that all carry a loss, or of which none does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// What they say, special tokens included.
    pub text: String,
    /// Whether they carry a loss.
    pub learnt: bool,
}

/// A tokenised record.
struct Sample {
    place: Place,
    whole: WholeSample,
    /// As training would see it.
    cut: SftExample,
}

/// Tokenises the records and looks at the result.
pub(super) fn token_findings(
    rows: &[&Located<InspectedRow>],
    tokenizer: &SftTokenizer<'_>,
    rendered: usize,
) -> TokenFindings {
    let tokenised: Vec<_> = rows
        .par_iter()
        .filter_map(|row| Some((Place::of(row), tokenise(row.record.record.as_ref().ok()?, tokenizer))))
        .collect();
    let (mut samples, mut failed) = (Vec::new(), Vec::new());
    for (place, outcome) in tokenised {
        match outcome {
            Ok((whole, cut)) => samples.push(Sample { place, whole, cut }),
            Err(error) => failed.push(Flaw { place, problem: explained(&error) }),
        }
    }
    let lengths: Vec<usize> = samples.iter().map(|sample| sample.whole.example.tokens.len()).collect();
    let lengths = LengthStatistics::of(&lengths);
    let targets = samples.iter().map(|sample| sample.whole.example.targets()).sum();
    let places = |chosen: fn(&Sample) -> bool| {
        samples.iter().filter(|sample| chosen(sample)).map(|sample| sample.place.clone()).collect()
    };
    TokenFindings {
        target_share: share(targets, lengths.total),
        lengths,
        targets,
        max_length: tokenizer.max_length,
        truncated: truncated(&samples),
        without_loss: places(|sample| sample.cut.targets() == 0),
        uneven_boundaries: places(|sample| sample.whole.uneven_boundary),
        failed,
        packing: packing(&samples, tokenizer.max_length),
        samples: spread(&samples, rendered).map(|sample| render(sample, tokenizer.tokenizer)).collect(),
    }
}

fn tokenise(
    record: &SftRecord,
    tokenizer: &SftTokenizer<'_>,
) -> Result<(WholeSample, SftExample), SftRecordError> {
    let whole = tokenizer.whole(record)?;
    let mut cut = whole.example.clone();
    tokenizer.truncate(&mut cut);
    Ok((whole, cut))
}

/// An error and what it is because of.
fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn truncated(samples: &[Sample]) -> Truncated {
    let mut lost = Truncated::default();
    for Sample { whole, cut, .. } in samples {
        let tokens = whole.example.tokens.len() - cut.tokens.len();
        lost.samples += usize::from(tokens > 0);
        lost.tokens += tokens;
        lost.targets += whole.example.targets().saturating_sub(cut.targets());
    }
    lost
}

/// Every way to put the samples that carry a loss into rows.
fn packing(samples: &[Sample], max_length: usize) -> Vec<PackingEfficiency> {
    let Some(row_length) = std::num::NonZeroUsize::new(max_length) else { return Vec::new() };
    let kinds = [Packing::BestFitDecreasing, Packing::BestFitDecreasingSplit, Packing::Wrapped];
    let efficiency = |packing: Option<Packing>| {
        let keeps_all = packing.is_some_and(Packing::keeps_every_token);
        let used =
            |sample: &&Sample| if keeps_all { &sample.whole.example } else { &sample.cut }.targets() > 0;
        let lengths: Vec<usize> =
            samples.iter().filter(used).map(|sample| sample.whole.example.tokens.len()).collect();
        let rows = match packing {
            None => lengths.len(),
            Some(packing) => packing.pack_lengths(&lengths, row_length).len(),
        };
        let all: usize = lengths.iter().sum();
        let tokens = if keeps_all { all } else { lengths.iter().map(|&length| length.min(max_length)).sum() };
        let filled = share(tokens, rows.saturating_mul(max_length));
        PackingEfficiency { packing, rows, tokens, lost: all - tokens, filled }
    };
    std::iter::once(None).chain(kinds.map(Some)).map(efficiency).collect()
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// So many of all, at equal distances, the first among them.
fn spread(samples: &[Sample], count: usize) -> impl Iterator<Item = &Sample> {
    let count = count.min(samples.len());
    (0..count).map(move |index| &samples[index * samples.len() / count])
}

fn render(sample: &Sample, tokenizer: &Tokenizer) -> RenderedSample {
    let SftExample { tokens, is_target } = &sample.cut;
    let learnt = |index: usize| index > 0 && is_target[index];
    let decode = |range: &[u32]| tokenizer.decode(range, SpecialTokenText::Keep).unwrap_or_default();
    let mut segments = Vec::new();
    let mut start = 0;
    for end in 1..=tokens.len() {
        if end < tokens.len() && learnt(end) == learnt(start) {
            continue;
        }
        // As a part of the whole: alone, some tokenizers drop a first space.
        let (before, until) = (decode(&tokens[..start]), decode(&tokens[..end]));
        let text = until.strip_prefix(&before).map_or_else(|| decode(&tokens[start..end]), str::to_owned);
        segments.push(Segment { text, learnt: learnt(start) });
        start = end;
    }
    let (place, tokens, targets) = (sample.place.clone(), tokens.len(), sample.cut.targets());
    RenderedSample { place, tokens, targets, segments }
}
