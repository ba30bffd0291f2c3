//! Demonstrations as a run learns them, and what became of those that it does not.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use align_model::{
    checkpoint::{Fingerprint, FingerprintBuilder},
    data::{self, Located, SftRecord, extra_columns},
    sft::{SftDataError, SftExample, SftTokenizer},
};
use anyhow::{Context as _, Result, ensure};

/// Demonstrations, tokenised.
#[derive(Debug, Default)]
pub(super) struct SftData {
    /// Where they come from, for people.
    pub(super) source: String,
    /// Whether they are all that there is.
    pub(super) extent: Extent,
    /// Those with something to learn.
    pub(super) examples: Vec<SftExample>,
    /// Where each of them stands.
    pub(super) places: Vec<Place>,
    /// Tokens of each record before it was cut.
    pub(super) lengths: Vec<usize>,
    /// Samples that were cut.
    truncated: usize,
    /// Where those stand in which nothing carries a loss.
    without_loss: Vec<Place>,
    /// Prompts that end inside a token of the whole sample.
    uneven_boundaries: usize,
    /// Columns that nothing takes, and how many records have them.
    extra: BTreeMap<String, usize>,
    /// Rows that were left out because they could not be read.
    skipped: usize,
}

/// How much of a data set is in memory before a run begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: the run learns these samples.
    #[default]
    Whole,
    /// All of it, though the run reads it anew as a stream.
    WholeStream,
    /// The first window; the run reads on.
    FirstWindow,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: Arc<Path>,
    line: usize,
}

impl Place {
    /// Where this record stands.
    pub(super) fn of<R>(located: &Located<R>) -> Self {
        Self { path: located.path.clone(), line: located.line }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

impl SftData {
    /// Tokenises records.
    pub(super) fn new(
        (source, extent): (String, Extent),
        records: &[Located<SftRecord>],
        skipped: usize,
        tokenizer: &SftTokenizer<'_>,
    ) -> Result<Self> {
        let mut data = Self { source, extent, skipped, extra: extra_columns(records), ..Self::default() };
        for located in records {
            let place = Place::of(located);
            let whole = tokenizer.whole(&located.record).map_err(|source| {
                let (path, line) = (place.path.display().to_string(), place.line);
                SftDataError { path, line, source }
            });
            let whole = whole.context("cannot prepare the data")?;
            let mut example = whole.example;
            data.lengths.push(example.tokens.len());
            data.uneven_boundaries += usize::from(whole.uneven_boundary);
            data.truncated += usize::from(tokenizer.truncate(&mut example));
            if example.targets() == 0 {
                data.without_loss.push(place);
            } else {
                data.examples.push(example);
                data.places.push(place);
            }
        }
        ensure!(!data.examples.is_empty(), "{}", data.nothing_to_learn());
        Ok(data)
    }

    fn nothing_to_learn(&self) -> String {
        let source = match self.extent {
            Extent::FirstWindow => format!("{}, its first {} records", self.source, self.lengths.len()),
            Extent::Whole | Extent::WholeStream => self.source.clone(),
        };
        if self.truncated > 0 {
            return format!(
                "{source}: no sample has a token to learn: {} of {} were cut before their response; raise sft.max_length, or keep their end with sft.truncation = \"keep_end\"",
                self.truncated,
                self.lengths.len()
            );
        }
        format!("{source}: no sample has a token to learn")
    }

    /// Tokens, and how many of them are learnt.
    pub(super) fn tokens(&self) -> (usize, usize) {
        let tokens = self.examples.iter().map(|example| example.tokens.len()).sum();
        (tokens, self.examples.iter().map(SftExample::targets).sum())
    }

    /// What is in it, in one line.
    pub(super) fn described(&self) -> String {
        let (tokens, targets) = self.tokens();
        let how = match self.extent {
            Extent::Whole => String::new(),
            Extent::WholeStream => ", streamed".into(),
            Extent::FirstWindow => format!(", streamed; of its first {} records", self.lengths.len()),
        };
        let samples = self.examples.len();
        format!("{}{how}: {samples} samples, {tokens} tokens, {targets} of them learnt", self.source)
    }

    /// What is worth a second look.
    pub(super) fn remarks(&self) -> Vec<String> {
        let without_loss = self.without_loss.len();
        let places = some(&self.without_loss);
        let counts = [
            (self.skipped, "rows could not be read and are left out".to_owned()),
            (self.truncated, "samples were longer than sft.max_length and cut".to_owned()),
            (without_loss, format!("samples have no token to learn and are left out ({places})")),
            (self.uneven_boundaries, "prompts end inside a token of the whole sample".to_owned()),
        ];
        let counted = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut remarks: Vec<String> = counted.map(|(count, what)| format!("{count} {what}")).collect();
        if !self.extra.is_empty() {
            let extra = self.extra.iter().map(|(column, rows)| format!("{column} ({rows})"));
            let extra: Vec<String> = extra.collect();
            remarks.push(format!("columns that are not used: {}", extra.join(", ")));
        }
        remarks
    }
}

/// What decides which samples a run sees and is evaluated on; of a stream, the files, and the tokens of what was read of
/// it beforehand, which tell how they are tokenised.
pub(super) fn fingerprint(
    train: &SftData,
    evaluation: Option<&SftData>,
    files: Option<data::Fingerprint>,
) -> Fingerprint {
    let mut builder = FingerprintBuilder::new();
    if let Some(files) = files {
        builder.update(files.to_string().as_bytes());
    }
    for data in [Some(train), evaluation].into_iter().flatten() {
        builder.update(&(data.examples.len() as u64).to_le_bytes());
        for example in &data.examples {
            builder.update(&(example.tokens.len() as u64).to_le_bytes());
            let tokens: Vec<u8> = example.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            builder.update(&tokens);
            let targets: Vec<u8> = example.is_target.iter().map(|&target| target.into()).collect();
            builder.update(&targets);
        }
    }
    builder.finish()
}

/// The first few places, and how many more there are.
pub(super) fn some(places: &[Place]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<String> = places.iter().take(SHOWN).map(ToString::to_string).collect();
    if places.len() > SHOWN {
        shown.push(format!("and {} more", places.len() - SHOWN));
    }
    shown.join(", ")
}
