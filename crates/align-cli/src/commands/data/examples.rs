//! What a method makes of its records: what it reads and how much of it, what it leaves out, and what speaks against it.

use std::collections::{BTreeMap, HashMap};

use align_model::{
    data::{Located, ShuffledBatches},
    inspect::{Flaw, InspectedRow, LengthStatistics, Place, Problem, ProblemKind},
    preference::UnpairedExample,
    tokenizer::{SpecialTokenText, Tokenizer},
};
use serde::Serialize;

use crate::method::{
    Example, Learnt, Method, ModelKind, Note, Part, Plan, Settings as _, Texts, distill::Distill, dpo::Dpo,
    grpo::Grpo, kto::Kto, online::Online, ppo::Ppo, raft::Raft, reward::Reward,
};

/// A method whose examples are looked at.
pub(super) trait Examined: Method {
    /// Whether an example is one completion that is good, or one that is bad; `None` where it is something else.
    fn judgement(_example: &Self::Example) -> Option<bool> {
        None
    }
}

impl Examined for Dpo {}
impl Examined for Reward {}
impl Examined for Grpo {}
impl Examined for Ppo {}
impl Examined for Online {}
impl Examined for Raft {}
impl Examined for Distill {}

impl Examined for Kto {
    fn judgement(example: &UnpairedExample) -> Option<bool> {
        Some(example.desirable)
    }
}

/// What a method makes of its records.
#[derive(Debug, Serialize)]
pub(super) struct ExampleFindings {
    /// What several of the examples are called.
    pub(super) plural: &'static str,
    /// How many there are.
    pub(super) count: usize,
    /// The setting that limits their lengths.
    pub(super) limit: Limit,
    /// Tokens of each prompt with one completion, before anything is cut.
    pub(super) lengths: LengthStatistics,
    /// Tokens of the parts of examples, as the method reads them.
    pub(super) parts: Vec<PartLengths>,
    /// Tokens that carry a loss; `None` where the method's loss is not one of tokens in the data.
    pub(super) learnt: Option<usize>,
    /// Tokens that are cut off.
    pub(super) lost: usize,
    /// Where the records stand of which something is to be noted.
    pub(super) notes: BTreeMap<Note, Vec<Place>>,
    /// Records that could not be tokenised.
    pub(super) failed: Vec<Flaw>,
    /// Of judged completions, how they are judged.
    pub(super) judgements: Option<Judgements>,
    /// Where judgements stand that contradict each other.
    pub(super) contradictions: Vec<[Place; 2]>,
    /// Some examples.
    pub(super) samples: Vec<RenderedExample>,
    /// The name of the table of settings.
    #[serde(skip)]
    pub(super) settings: &'static str,
}

/// A limit on lengths.
#[derive(Debug, Serialize)]
pub(super) struct Limit {
    /// Its key in a run file.
    pub(super) setting: String,
    /// Tokens.
    pub(super) tokens: usize,
}

/// Lengths of one part of every example.
#[derive(Debug, Serialize)]
pub(super) struct PartLengths {
    /// What it is; nothing where there is no other.
    pub(super) name: &'static str,
    /// Tokens of it.
    pub(super) lengths: LengthStatistics,
}

/// How completions are judged.
#[derive(Debug, Default, Serialize)]
pub(super) struct Judgements {
    /// Good ones.
    pub(super) desirable: usize,
    /// Bad ones.
    pub(super) undesirable: usize,
    /// Batches that the run would make.
    pub(super) batches: usize,
    /// Those in which all are judged alike.
    pub(super) one_sided: usize,
}

/// An example as text.
#[derive(Debug, Serialize)]
pub(super) struct RenderedExample {
    /// The record.
    pub(super) place: Place,
    /// What it says besides its tokens.
    pub(super) label: Option<String>,
    /// Its parts.
    pub(super) parts: Vec<RenderedPart>,
}

/// A part of an example as text.
#[derive(Debug, Serialize)]
pub(super) struct RenderedPart {
    /// What it is; nothing where there is no other.
    pub(super) name: &'static str,
    /// Number of tokens.
    pub(super) tokens: usize,
    /// Whether they carry a loss.
    pub(super) learnt: bool,
    /// What they say, special tokens included.
    pub(super) text: String,
}

impl ExampleFindings {
    /// Tokenises records and looks at the result.
    pub(super) fn new<M: Examined>(
        config: &M::Config,
        texts: Texts<'_>,
        rows: Vec<Located<InspectedRow<M::Record>>>,
        rendered: usize,
    ) -> Self {
        let read = Read::<M>::new(config, texts, rows);
        let examples = &read.examples;
        let plan = config.plan();
        let is_learnt = |example: &M::Example| example.parts().iter().any(|part| part.learnt != Learnt::None);
        let is_of_tokens =
            M::Config::MODEL == ModelKind::Language && examples.iter().any(|(_, example)| is_learnt(example));
        let learnt = |example: &M::Example| example.parts().iter().map(Part::learnt).sum::<usize>();
        let shown = rendered.min(examples.len());
        let samples = (0..shown).map(|index| &examples[index * examples.len() / shown]);
        Self {
            plural: M::Example::PLURAL,
            count: examples.len(),
            limit: Limit {
                setting: format!("{}.{}", M::Config::NAME, M::Config::LENGTH),
                tokens: plan.max_length.get(),
            },
            lengths: LengthStatistics::of(&read.lengths),
            parts: part_lengths(examples),
            learnt: is_of_tokens.then(|| examples.iter().map(|(_, example)| learnt(example)).sum()),
            lost: read.lost,
            judgements: judgements::<M>(examples, &plan),
            contradictions: contradictions::<M>(examples),
            samples: samples.map(|one| render(one, texts.tokenizer, is_of_tokens)).collect(),
            notes: read.notes,
            failed: read.failed,
            settings: M::Config::NAME,
        }
    }

    /// The kinds of mistakes that were found.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let noted = |chosen: &dyn Fn(Note) -> bool| {
            self.notes.iter().filter(|(note, _)| chosen(**note)).map(|(_, places)| places.len()).sum()
        };
        let of_their_own = [Note::WithoutLoss, Note::IdenticalPair, Note::EmptyCompletion];
        let found = [
            (ProblemKind::NotTokenised, self.failed.len()),
            (ProblemKind::WithoutLoss, noted(&|note| note == Note::WithoutLoss)),
            (ProblemKind::IdenticalPairs, noted(&|note| note == Note::IdenticalPair)),
            (ProblemKind::EmptyCompletions, noted(&|note| note == Note::EmptyCompletion)),
            (ProblemKind::LeftOut, noted(&|note| note.leaves_out() && !of_their_own.contains(&note))),
            (ProblemKind::UnevenBoundaries, noted(&|note| note == Note::UnevenBoundary)),
            (ProblemKind::Contradictions, self.contradictions.len()),
            (ProblemKind::OneSidedBatches, self.judgements.as_ref().map_or(0, |judged| judged.one_sided)),
        ];
        let found = found.into_iter().filter(|(_, records)| *records > 0);
        found.map(|(kind, records)| Problem { kind, records }).collect()
    }
}

/// Records, tokenised.
struct Read<M: Method> {
    examples: Vec<(Place, M::Example)>,
    lengths: Vec<usize>,
    lost: usize,
    notes: BTreeMap<Note, Vec<Place>>,
    failed: Vec<Flaw>,
}

impl<M: Method> Read<M> {
    fn new(config: &M::Config, texts: Texts<'_>, rows: Vec<Located<InspectedRow<M::Record>>>) -> Self {
        let tokenize = M::tokenize(config, texts);
        let (examples, lengths) = (Vec::new(), Vec::new());
        let mut read = Self { examples, lengths, lost: 0, notes: BTreeMap::new(), failed: Vec::new() };
        for Located { source, path, line, record, extra } in rows {
            let Ok(record) = record.record else { continue };
            let located = Located { source, path, line, record, extra };
            let place = Place::of(&located);
            let tokenized = match tokenize(&located) {
                Ok(tokenized) => tokenized,
                Err(error) => {
                    read.failed.push(Flaw { problem: explained(&error, &place), place });
                    continue;
                }
            };
            let kept: Vec<usize> = tokenized.examples.iter().flat_map(sequence_lengths).collect();
            if kept.len() == tokenized.lengths.len() {
                let cut =
                    tokenized.lengths.iter().zip(&kept).map(|(whole, kept)| whole.saturating_sub(*kept));
                read.lost += cut.sum::<usize>();
            }
            read.lengths.extend(tokenized.lengths);
            for note in tokenized.notes {
                read.notes.entry(note).or_default().push(place.clone());
            }
            read.examples.extend(tokenized.examples.into_iter().map(|example| (place.clone(), example)));
        }
        read
    }
}

/// An error and what it is because of, without the place that is told beside it.
fn explained(error: &anyhow::Error, place: &Place) -> String {
    let mut reasons: Vec<String> = error.chain().map(ToString::to_string).collect();
    if reasons.len() > 1 {
        reasons.remove(0);
    }
    reasons.join(": ").replace(&format!("{place}: "), "")
}

/// Tokens of a prompt with each of its completions.
fn sequence_lengths<E: Example>(example: &E) -> Vec<usize> {
    let lengths: Vec<usize> = example.parts().iter().map(|part| part.tokens.len()).collect();
    match &lengths[..] {
        [prompt, completions @ ..] if !completions.is_empty() => {
            completions.iter().map(|completion| prompt + completion).collect()
        }
        _ => lengths,
    }
}

fn part_lengths<E: Example>(examples: &[(Place, E)]) -> Vec<PartLengths> {
    let mut by_name: Vec<(&'static str, Vec<usize>)> = Vec::new();
    for part in examples.iter().flat_map(|(_, example)| example.parts()) {
        match by_name.iter_mut().find(|(name, _)| *name == part.name) {
            Some((_, lengths)) => lengths.push(part.tokens.len()),
            None => by_name.push((part.name, vec![part.tokens.len()])),
        }
    }
    let statistics =
        |(name, lengths): (_, Vec<usize>)| PartLengths { name, lengths: LengthStatistics::of(&lengths) };
    by_name.into_iter().map(statistics).collect()
}

/// Batches that are looked at, at most.
const BATCHES: usize = 100_000;

fn judgements<M: Examined>(examples: &[(Place, M::Example)], plan: &Plan) -> Option<Judgements> {
    let judged: Vec<bool> = examples.iter().filter_map(|(_, example)| M::judgement(example)).collect();
    if judged.is_empty() {
        return None;
    }
    let mut found =
        Judgements { desirable: judged.iter().filter(|good| **good).count(), ..Judgements::default() };
    found.undesirable = judged.len() - found.desirable;
    let steps = plan.duration.steps(judged.len(), plan.batch_size);
    let steps = usize::try_from(steps).unwrap_or(BATCHES).min(BATCHES);
    for batch in ShuffledBatches::new(judged.len(), plan.batch_size.get(), plan.seed).take(steps) {
        found.batches += 1;
        let good = batch.iter().filter(|index| judged[**index]).count();
        found.one_sided += usize::from(good == 0 || good == batch.len());
    }
    Some(found)
}

/// Judgements of the same completions that differ, the second of them at every place but the first.
fn contradictions<M: Examined>(examples: &[(Place, M::Example)]) -> Vec<[Place; 2]> {
    let mut known: HashMap<(Vec<&[u32]>, Option<bool>), &Place> = HashMap::new();
    let mut found = Vec::new();
    for (place, example) in examples {
        let tokens: Vec<&[u32]> = example.parts().iter().map(|part| part.tokens).collect();
        let judgement = M::judgement(example);
        let opposite = match (&tokens[..], judgement) {
            (_, Some(good)) => Some((tokens.clone(), Some(!good))),
            (&[prompt, chosen, rejected, ..], None) => Some((vec![prompt, rejected, chosen], None)),
            _ => None,
        };
        let Some(opposite) = opposite else { return found };
        if let Some(first) = known.get(&opposite) {
            found.push([(*first).clone(), place.clone()]);
        }
        known.entry((tokens.into_iter().take(3).collect(), judgement)).or_insert(place);
    }
    found
}

fn render<E: Example>(
    (place, example): &(Place, E),
    tokenizer: &Tokenizer,
    is_of_tokens: bool,
) -> RenderedExample {
    let decode = |tokens: &[u32]| tokenizer.decode(tokens, SpecialTokenText::Keep).unwrap_or_default();
    let parts = example.parts();
    let before = match &parts[..] {
        [prompt, _, ..] => prompt.tokens,
        _ => &[],
    };
    let rendered = parts.iter().enumerate().map(|(index, part)| {
        // As what follows the prompt: alone, some tokenizers drop a first space.
        let text = if index == 0 {
            decode(part.tokens)
        } else {
            let whole = decode(&[before, part.tokens].concat());
            whole.strip_prefix(&decode(before)).map_or_else(|| decode(part.tokens), str::to_owned)
        };
        let learnt = is_of_tokens && part.learnt != Learnt::None;
        RenderedPart { name: part.name, tokens: part.tokens.len(), learnt, text }
    });
    RenderedExample { place: place.clone(), label: example.label(), parts: rendered.collect() }
}
