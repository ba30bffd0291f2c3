//! Examples as a run learns them, and what became of records that it does not learn.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use align_model::{
    checkpoint::{Fingerprint, FingerprintBuilder},
    data::{self, Located, extra_columns},
};
use anyhow::{Result, ensure};

use crate::method::{Example, Method, Note, Part, Settings as _, Tokenize};

/// Records, tokenised.
#[derive(Debug)]
pub(super) struct TrainingData<E> {
    /// Where they come from, for people.
    pub(super) source: String,
    /// Whether they are all that there is.
    pub(super) extent: Extent,
    /// Those with something to learn.
    pub(super) examples: Vec<E>,
    /// Where each of them stands.
    pub(super) places: Vec<Place>,
    /// Tokens of each sequence before it was cut.
    pub(super) lengths: Vec<usize>,
    /// How many records were read.
    pub(super) records: usize,
    /// The name of the table of settings, for people.
    settings: &'static str,
    /// Where the records stand of which something is to be noted.
    notes: BTreeMap<Note, Vec<Place>>,
    /// Columns that nothing takes, and how many records have them.
    extra: BTreeMap<String, usize>,
    /// Rows that were left out because they could not be read.
    skipped: usize,
}

/// How much of a data set is in memory before a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: the run learns these samples.
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

impl<E: Example> TrainingData<E> {
    /// Tokenises records.
    pub(super) fn new<M: Method<Example = E>>(
        (source, extent): (String, Extent),
        records: &[Located<M::Record>],
        skipped: usize,
        tokenize: &Tokenize<'_, M>,
    ) -> Result<Self> {
        let mut data = Self {
            source,
            extent,
            examples: Vec::new(),
            places: Vec::new(),
            lengths: Vec::new(),
            records: records.len(),
            settings: M::Config::NAME,
            notes: BTreeMap::new(),
            // Rewards may look at every column.
            extra: if M::Config::LEARNS_FROM.has_rewards() {
                BTreeMap::new()
            } else {
                extra_columns(records)
            },
            skipped,
        };
        for located in records {
            let (place, tokenized) = (Place::of(located), tokenize(located)?);
            data.lengths.extend(tokenized.lengths);
            for note in tokenized.notes {
                data.notes.entry(note).or_default().push(place.clone());
            }
            data.places.extend(tokenized.examples.iter().map(|_| place.clone()));
            data.examples.extend(tokenized.examples);
        }
        ensure!(!data.examples.is_empty(), "{}", data.nothing_to_learn());
        Ok(data)
    }

    fn nothing_to_learn(&self) -> String {
        let (settings, count) = (self.settings, self.records);
        let source = match self.extent {
            Extent::FirstWindow => format!("{}, its first {count} records", self.source),
            Extent::Whole | Extent::WholeStream => self.source.clone(),
        };
        let nothing = format!("{source}: no sample has a token to learn");
        let cut = self.notes.get(&Note::Truncated).filter(|_| self.notes.contains_key(&Note::WithoutLoss));
        match cut.map(Vec::len) {
            Some(cut) => format!(
                "{nothing}: {cut} of {count} were cut before their response; raise {settings}.max_length, or keep their end with {settings}.truncation = \"keep_end\""
            ),
            None if self.notes.is_empty() => nothing,
            None => format!("{nothing}: {}", self.noted().collect::<Vec<_>>().join("; ")),
        }
    }

    /// Tokens, and how many of them are learnt.
    pub(super) fn tokens(&self) -> (usize, usize) {
        let parts = self.examples.iter().flat_map(Example::parts);
        parts.fold((0, 0), |(all, learnt), part| (all + part.tokens.len(), learnt + part.learnt()))
    }

    /// What is in it, in one line.
    pub(super) fn described(&self) -> String {
        let (tokens, targets) = self.tokens();
        let how = match self.extent {
            Extent::Whole => String::new(),
            Extent::WholeStream => ", streamed".into(),
            Extent::FirstWindow => format!(", streamed; of its first {} records", self.records),
        };
        let (count, plural) = (self.examples.len(), E::PLURAL);
        let learnt = if targets > 0 { format!(", {targets} of them learnt") } else { String::new() };
        format!("{}{how}: {count} {plural}, {tokens} tokens{learnt}", self.source)
    }

    /// What is worth a second look.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.skipped > 0 {
            remarks.push(format!("{} rows could not be read and are left out", self.skipped));
        }
        remarks.extend(self.noted());
        if !self.extra.is_empty() {
            let extra = self.extra.iter().map(|(column, rows)| format!("{column} ({rows})"));
            let extra: Vec<String> = extra.collect();
            remarks.push(format!("columns that are not used: {}", extra.join(", ")));
        }
        remarks
    }

    fn noted(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|(note, places)| {
            let said = format!("{} {}", places.len(), note.said(self.settings));
            if note.leaves_out() { format!("{said} ({})", some(places)) } else { said }
        })
    }
}

/// What decides which samples a run sees and is evaluated on; of a stream, the files, and the tokens of what was read of
/// it beforehand, which tell how they are tokenised.
pub(super) fn fingerprint<E: Example>(
    train: &TrainingData<E>,
    evaluation: Option<&TrainingData<E>>,
    files: Option<data::Fingerprint>,
) -> Fingerprint {
    let mut builder = FingerprintBuilder::new();
    if let Some(files) = files {
        builder.update(files.to_string().as_bytes());
    }
    for data in [Some(train), evaluation].into_iter().flatten() {
        builder.update(&(data.examples.len() as u64).to_le_bytes());
        for example in &data.examples {
            for part in example.parts() {
                builder.update(&(part.tokens.len() as u64).to_le_bytes());
                let tokens: Vec<u8> = part.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
                builder.update(&tokens);
                let targets: Vec<u8> = part.marks().into_iter().map(u8::from).collect();
                builder.update(&targets);
            }
            builder.update(example.label().unwrap_or_default().as_bytes());
        }
    }
    builder.finish()
}

/// Examples that can be told apart by their tokens.
pub(super) fn content<E: Example>(example: &E) -> Vec<&[u32]> {
    example.parts().iter().map(|Part { tokens, .. }| *tokens).collect()
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
