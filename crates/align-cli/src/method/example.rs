//! What a record becomes: tokens, and what is noteworthy about them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tokenized<E> {
    /// Those with something to learn.
    pub(crate) examples: Vec<E>,
    /// Tokens of each sequence before it was cut.
    pub(crate) lengths: Vec<usize>,
    /// What is worth a second look.
    pub(crate) notes: Vec<Note>,
}

/// What may be noteworthy about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    /// It was cut.
    Truncated,
    /// It is left out: no token carries a loss.
    WithoutLoss,
    /// It is left out: it prefers a completion to itself.
    IdenticalPair,
    /// It is left out: a completion says nothing.
    EmptyCompletion,
    /// It is left out: it is longer than allowed.
    TooLong,
    /// It is left out: there is no completion to imitate.
    NoGold,
    /// It is left out: its prompt alone is as long as allowed.
    NothingLeft,
    /// It is left out: its prompt is longer than allowed.
    LongPrompt,
    /// Its prompt lost its beginning.
    CutPrompt,
    /// It is left out: its prompt fills what the model can read.
    FillsContext,
    /// It is left out: there is no prompt.
    NoPrompt,
    /// Its completion is longer than what is sampled, and lost its end.
    CutCompletion,
    /// It has a completion that nothing learns from.
    UnreadCompletion,
    /// Its prompt ends inside a token of the whole.
    UnevenBoundary,
}

impl Note {
    /// What happened to so many, for people; `settings` is the name of the table of settings.
    pub(crate) fn said(self, settings: &str) -> String {
        match self {
            Self::Truncated => format!("samples were longer than {settings}.max_length and cut"),
            Self::WithoutLoss => "samples have no token to learn and are left out".into(),
            Self::IdenticalPair => "pairs prefer a completion to itself and are left out".into(),
            Self::EmptyCompletion => "samples have an empty completion and are left out".into(),
            Self::NoGold => {
                "pairs have no `reference` to imitate, of the same form and prompt, and are left out".into()
            }
            Self::NothingLeft => {
                format!("prompts leave nothing of {settings}.max_length to a completion and are left out")
            }
            Self::TooLong => format!("samples are longer than {settings}.max_length and are left out"),
            Self::LongPrompt => {
                format!("prompts are longer than {settings}.rollout.prompt_limit and are left out")
            }
            Self::CutPrompt => {
                format!("prompts are longer than {settings}.rollout.prompt_limit and lose their beginning")
            }
            Self::FillsContext => {
                "prompts fill the model's context, leave no room for a completion and are left out".into()
            }
            Self::CutCompletion => {
                format!(
                    "completions are longer than {settings}.rollout.max_new_tokens, or than the context, and cut"
                )
            }
            Self::UnreadCompletion => format!(
                "completions are not read: {settings}.on_policy and {settings}.off_policy have others written"
            ),
            Self::NoPrompt => "prompts have no token and are left out".into(),
            Self::UnevenBoundary => "prompts end inside a token of the whole sample".into(),
        }
    }

    /// Whether it means that nothing is learnt of the record: where it stands is then worth knowing.
    pub(crate) fn leaves_out(self) -> bool {
        !matches!(
            self,
            Self::Truncated
                | Self::CutPrompt
                | Self::CutCompletion
                | Self::UnreadCompletion
                | Self::UnevenBoundary
        )
    }
}

/// A record in tokens.
pub(crate) trait Example: Clone + fmt::Debug {
    /// What several of them are called.
    const PLURAL: &'static str;

    /// All that there is of it, in the order in which it is read.
    fn parts(&self) -> Vec<Part<'_>>;

    /// What it says besides its tokens.
    fn label(&self) -> Option<String> {
        None
    }
}

/// Some of an example's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// What it is; nothing where there is no other.
    pub(crate) name: &'static str,
    /// The tokens.
    pub(crate) tokens: &'a [u32],
    /// Which of them are learnt.
    pub(crate) learnt: Learnt<'a>,
}

/// Which tokens are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt<'a> {
    /// None of them: they are given.
    None,
    /// All of them.
    All,
    /// Those that are marked.
    Marked(&'a [bool]),
}

impl Part<'_> {
    /// Whether each token is learnt.
    pub(crate) fn marks(&self) -> Vec<bool> {
        match self.learnt {
            Learnt::None => vec![false; self.tokens.len()],
            Learnt::All => vec![true; self.tokens.len()],
            Learnt::Marked(marks) => marks.to_vec(),
        }
    }

    /// How many tokens are learnt.
    pub(crate) fn learnt(&self) -> usize {
        match self.learnt {
            Learnt::None => 0,
            Learnt::All => self.tokens.len(),
            // Nothing comes before a first token: it is never predicted.
            Learnt::Marked(marks) => marks.iter().skip(1).filter(|mark| **mark).count(),
        }
    }
}
