//! From records to tokens, as TRL's `DPOTrainer`, `RewardTrainer` and `KTOTrainer` prepare them.

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::{PreferenceExample, UnpairedExample};
use crate::{
    chat::{ChatTemplates, Message},
    data::{GoldCompletion, Located, PreferenceRecord, TemplateColumns, TripleRecord, UnpairedRecord},
    sft::{LossOn, SftRecordError, SftTokenizer, Truncation},
    tokenizer::{SpecialTokens, Tokenizer},
};

/// What becomes of an example that is longer than allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTooLong {
    /// Each completion loses what lies beyond the limit. What TRL's `DPOTrainer` and `KTOTrainer` do.
    #[default]
    Truncate,
    /// It is left out. What TRL's `RewardTrainer` does: a cut sequence has another last token, which is what is scored.
    LeaveOut,
}

/// Turns records into examples.
///
/// The prompt is tokenised alone, and a completion is what follows as many tokens of the whole, which is tokenised
/// together. A completion that is plain text is ended; a conversation ends as its template ends it.
#[derive(Debug)]
pub struct PreferenceTokenizer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat templates; needed for conversational records.
    pub templates: Option<&'a ChatTemplates>,
    /// Tokens of a prompt with its completion, at most.
    pub max_length: usize,
    /// What becomes of longer ones.
    pub on_too_long: OnTooLong,
    /// What a template that asks for the date is told.
    pub now: Option<NaiveDateTime>,
    /// Names of the data's sources, in their order, where measurements are wanted for each; else empty.
    pub slices: Vec<String>,
}

/// What became of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceSamples<E> {
    /// The examples, in the order of their records.
    pub examples: Vec<E>,
    /// Examples that were longer than allowed and cut.
    pub truncated: usize,
    /// Examples with a prompt that, tokenised alone, is not how the whole begins; the model learns from the prompt's own
    /// tokens and from what follows as many of the whole's.
    pub uneven_boundaries: usize,
    /// Pairs left out because both completions are the same tokens, or are once they are cut.
    pub identical: usize,
    /// Examples left out because a completion says nothing.
    pub empty: usize,
    /// Examples left out because they are longer than allowed.
    pub too_long: usize,
    /// Pairs left out because they have no third completion, which is to be imitated.
    pub without_gold: usize,
    /// Examples left out because the prompt alone fills the allowed length.
    pub nothing_left: usize,
}

/// Why a record became no example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// Both completions are the same tokens, or are once they are cut: nothing says which is better.
    Identical,
    /// A completion says nothing.
    Empty,
    /// It is longer than allowed and [`OnTooLong::LeaveOut`] was asked for.
    TooLong,
    /// There is no third completion, which is to be imitated.
    NoGold,
    /// The prompt alone fills the allowed length, and no token of a completion is left.
    NothingLeft,
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceOutcome<E> {
    /// The example, or why there is none.
    pub example: Result<E, LeftOut>,
    /// Whether it was longer than allowed and cut.
    pub is_truncated: bool,
    /// Whether its prompt, tokenised alone, is not how the whole begins.
    pub is_uneven: bool,
}

/// A record could not become an example.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}")]
pub struct PreferenceDataError {
    /// The file.
    pub path: String,
    /// The line; the first is 1.
    pub line: usize,
    /// Why.
    #[source]
    pub source: SftRecordError,
}

impl<E> Default for PreferenceSamples<E> {
    fn default() -> Self {
        Self {
            examples: Vec::new(),
            truncated: 0,
            uneven_boundaries: 0,
            identical: 0,
            empty: 0,
            too_long: 0,
            without_gold: 0,
            nothing_left: 0,
        }
    }
}

impl<E> PreferenceSamples<E> {
    /// Adds what became of one more record.
    pub fn push(&mut self, outcome: PreferenceOutcome<E>) {
        self.truncated += usize::from(outcome.is_truncated);
        self.uneven_boundaries += usize::from(outcome.is_uneven);
        match outcome.example {
            Ok(example) => self.examples.push(example),
            Err(LeftOut::Identical) => self.identical += 1,
            Err(LeftOut::Empty) => self.empty += 1,
            Err(LeftOut::TooLong) => self.too_long += 1,
            Err(LeftOut::NoGold) => self.without_gold += 1,
            Err(LeftOut::NothingLeft) => self.nothing_left += 1,
        }
    }

    /// Records that became no example.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.identical + self.empty + self.too_long + self.without_gold + self.nothing_left
    }
}

impl PreferenceTokenizer<'_> {
    /// Turns all records of pairs into examples.
    ///
    /// # Errors
    /// If one cannot be: says where it stands and why.
    pub fn pairs(
        &self,
        records: &[Located<PreferenceRecord>],
    ) -> Result<PreferenceSamples<PreferenceExample>, PreferenceDataError> {
        let mut samples = PreferenceSamples::default();
        for located in records {
            samples.push(self.pair(located)?);
        }
        Ok(samples)
    }

    /// Turns one record of a pair into an example.
    ///
    /// # Errors
    /// If it cannot be: says where it stands and why.
    pub fn pair(
        &self,
        located: &Located<PreferenceRecord>,
    ) -> Result<PreferenceOutcome<PreferenceExample>, PreferenceDataError> {
        let (margin, is_empty, tokenised) = match &located.record {
            PreferenceRecord::Text { prompt, chosen, rejected, margin } => (
                *margin,
                chosen.trim().is_empty() || rejected.trim().is_empty(),
                self.texts(prompt, &[chosen, rejected]),
            ),
            PreferenceRecord::Chat { prompt, chosen, rejected, margin, template } => (
                *margin,
                says_nothing(chosen) || says_nothing(rejected),
                self.conversations(prompt, &[chosen, rejected], template),
            ),
        };
        let tokenised = tokenised.map_err(|source| at(located, source))?;
        let slice = self.slice(located.source);
        Ok(self.outcome(is_empty, tokenised, |prompt, [chosen, rejected]| {
            if chosen == rejected {
                return Err(LeftOut::Identical);
            }
            Ok(PreferenceExample { prompt, chosen, rejected, gold: None, margin, slice })
        }))
    }

    /// Turns one record of a pair with a third completion, which is to be imitated, into an example.
    ///
    /// # Errors
    /// If it cannot be: says where it stands and why.
    pub fn triple(
        &self,
        located: &Located<TripleRecord>,
    ) -> Result<PreferenceOutcome<PreferenceExample>, PreferenceDataError> {
        let TripleRecord { pair, gold } = &located.record;
        let (margin, is_empty, tokenised) = match (pair, gold) {
            (
                PreferenceRecord::Text { prompt, chosen, rejected, margin },
                Some(GoldCompletion::Text(gold)),
            ) => (
                *margin,
                [chosen, rejected, gold].iter().any(|text| text.trim().is_empty()),
                self.texts(prompt, &[chosen, rejected, gold]),
            ),
            (
                PreferenceRecord::Chat { prompt, chosen, rejected, margin, template },
                Some(GoldCompletion::Chat(gold)),
            ) => (
                *margin,
                [chosen, rejected, gold].iter().any(|messages| says_nothing(messages)),
                self.conversations(prompt, &[chosen, rejected, gold], template),
            ),
            _ => {
                let example = Err(LeftOut::NoGold);
                return Ok(PreferenceOutcome { example, is_truncated: false, is_uneven: false });
            }
        };
        let tokenised = tokenised.map_err(|source| at(located, source))?;
        let slice = self.slice(located.source);
        Ok(self.outcome(is_empty, tokenised, |prompt, [chosen, rejected, gold]| {
            if chosen == rejected {
                return Err(LeftOut::Identical);
            }
            Ok(PreferenceExample { prompt, chosen, rejected, gold: Some(gold), margin, slice })
        }))
    }

    /// Turns all records of judged completions into examples.
    ///
    /// # Errors
    /// If one cannot be: says where it stands and why.
    pub fn unpaired(
        &self,
        records: &[Located<UnpairedRecord>],
    ) -> Result<PreferenceSamples<UnpairedExample>, PreferenceDataError> {
        let mut samples = PreferenceSamples::default();
        for located in records {
            samples.push(self.single(located)?);
        }
        Ok(samples)
    }

    /// Turns one record of a judged completion into an example.
    ///
    /// # Errors
    /// If it cannot be: says where it stands and why.
    pub fn single(
        &self,
        located: &Located<UnpairedRecord>,
    ) -> Result<PreferenceOutcome<UnpairedExample>, PreferenceDataError> {
        let (desirable, is_empty, tokenised) = match &located.record {
            UnpairedRecord::Text { prompt, completion, label } => {
                (*label, completion.trim().is_empty(), self.texts(prompt, &[completion]))
            }
            UnpairedRecord::Chat { prompt, completion, label, template } => {
                (*label, says_nothing(completion), self.conversations(prompt, &[completion], template))
            }
        };
        let tokenised = tokenised.map_err(|source| at(located, source))?;
        let slice = self.slice(located.source);
        Ok(self.outcome(is_empty, tokenised, |prompt, [completion]| {
            Ok(UnpairedExample { prompt, completion, desirable, slice })
        }))
    }

    /// Cuts or leaves out what is too long, and makes an example of what remains.
    fn outcome<E, const N: usize>(
        &self,
        is_empty: bool,
        tokenised: Tokenised<N>,
        example: impl FnOnce(Vec<u32>, [Vec<u32>; N]) -> Result<E, LeftOut>,
    ) -> PreferenceOutcome<E> {
        let Tokenised { mut prompt, mut completions, is_uneven } = tokenised;
        let limit = self.max_length.saturating_sub(prompt.len());
        let is_long = prompt.len() > self.max_length || completions.iter().any(|one| one.len() > limit);
        let left_out = |why| PreferenceOutcome { example: Err(why), is_truncated: false, is_uneven };
        if is_empty {
            return left_out(LeftOut::Empty);
        }
        if is_long && self.on_too_long == OnTooLong::LeaveOut {
            return left_out(LeftOut::TooLong);
        }
        prompt.truncate(self.max_length);
        for completion in &mut completions {
            completion.truncate(limit);
        }
        // A token that nothing precedes is never predicted.
        let unpredicted = usize::from(prompt.is_empty());
        if completions.iter().any(|completion| completion.len() <= unpredicted) {
            return left_out(LeftOut::NothingLeft);
        }
        PreferenceOutcome { example: example(prompt, completions), is_truncated: is_long, is_uneven }
    }

    /// Tokens of a prompt and of its completions, and whether a boundary is uneven.
    fn texts<const N: usize>(
        &self,
        prompt: &str,
        completions: &[&String; N],
    ) -> Result<Tokenised<N>, SftRecordError> {
        let sft = self.sft();
        let start = self.tokenizer.encode(prompt, SpecialTokens::Add)?;
        after(start, completions, |completion| Ok(sft.encode_ended(&format!("{prompt}{completion}"))?))
    }

    fn conversations<const N: usize>(
        &self,
        prompt: &[Message],
        completions: &[&Vec<Message>; N],
        columns: &TemplateColumns,
    ) -> Result<Tokenised<N>, SftRecordError> {
        let sft = self.sft();
        let start = sft.render(prompt, columns, true)?;
        after(start, completions, |completion| {
            let whole: Vec<Message> = prompt.iter().chain(completion.iter()).cloned().collect();
            sft.render(&whole, columns, false)
        })
    }

    fn sft(&self) -> SftTokenizer<'_> {
        SftTokenizer {
            tokenizer: self.tokenizer,
            templates: self.templates,
            loss_on: LossOn::Completion,
            max_length: self.max_length,
            truncation: Truncation::KeepStart,
            now: self.now,
        }
    }

    fn slice(&self, source: usize) -> Option<String> {
        self.slices.get(source).cloned()
    }
}

/// A prompt and its completions as tokens.
struct Tokenised<const N: usize> {
    prompt: Vec<u32>,
    completions: [Vec<u32>; N],
    /// Whether the prompt is not how each whole begins.
    is_uneven: bool,
}

/// The part of each whole that follows the prompt's tokens.
fn after<C, const N: usize>(
    prompt: Vec<u32>,
    completions: &[&C; N],
    whole: impl Fn(&C) -> Result<Vec<u32>, SftRecordError>,
) -> Result<Tokenised<N>, SftRecordError> {
    let mut parts = std::array::from_fn(|_| Vec::new());
    let mut is_uneven = false;
    for (part, completion) in parts.iter_mut().zip(completions) {
        let mut tokens = whole(completion)?;
        is_uneven |= !tokens.starts_with(&prompt);
        *part = tokens.split_off(prompt.len().min(tokens.len()));
    }
    Ok(Tokenised { prompt, completions: parts, is_uneven })
}

/// Whether none of the messages has a text, a call or a thought.
fn says_nothing(messages: &[Message]) -> bool {
    let otherwise = ["tool_calls", "function_call"];
    messages.iter().all(|message| {
        message.text().trim().is_empty()
            && message.reasoning_content().is_none()
            && otherwise.iter().all(|key| message.get(key).is_none())
    })
}

fn at<R>(located: &Located<R>, source: SftRecordError) -> PreferenceDataError {
    PreferenceDataError { path: located.path.display().to_string(), line: located.line, source }
}
