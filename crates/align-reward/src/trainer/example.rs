//! What reward models learn from besides pairs.

use align_model::preference::PreferenceExample;
use serde::Serialize;

/// A prompt and several responses, from the best to the worst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RankedExample {
    /// The prompt; every response goes on from it.
    pub prompt: Vec<u32>,
    /// The responses, at least two.
    pub responses: Vec<Vec<u32>>,
}

/// A prompt, a response, and what it was rated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RatedExample {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The response.
    pub response: Vec<u32>,
    /// One rating for each of the model's labels (its attributes); those that are missing carry no loss.
    pub ratings: Vec<Option<f32>>,
}

/// A prompt, a response, and its grade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GradedExample {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The response.
    pub response: Vec<u32>,
    /// From 0, the worst, to one less than the number of grades.
    pub grade: usize,
}

/// A prompt and responses to it, wherever they come from.
#[derive(Debug, Clone)]
pub(super) struct Group<'a> {
    pub(super) prompt: &'a [u32],
    pub(super) responses: Vec<&'a [u32]>,
}

impl<'a> Group<'a> {
    pub(super) fn of_pair(pair: &'a PreferenceExample) -> Self {
        Self { prompt: &pair.prompt, responses: vec![&pair.chosen, &pair.rejected] }
    }

    pub(super) fn of_list(list: &'a RankedExample) -> Self {
        Self { prompt: &list.prompt, responses: list.responses.iter().map(Vec::as_slice).collect() }
    }

    pub(super) fn of_one(prompt: &'a [u32], response: &'a [u32]) -> Self {
        Self { prompt, responses: vec![response] }
    }

    /// Tokens of all sequences; the prompt counts once for each.
    pub(super) fn tokens(&self) -> u64 {
        self.responses.iter().map(|response| (self.prompt.len() + response.len()) as u64).sum()
    }
}
