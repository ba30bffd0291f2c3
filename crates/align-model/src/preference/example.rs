//! What preference learning is given.

use serde::Serialize;

/// A prompt and two completions of it, of which the first is preferred; for TPO a third one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreferenceExample {
    /// The prompt, tokenised alone; both completions go on from it.
    pub prompt: Vec<u32>,
    /// The better completion.
    pub chosen: Vec<u32>,
    /// The worse one.
    pub rejected: Vec<u32>,
    /// One to imitate, where a third one is learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gold: Option<Vec<u32>>,
    /// By how much the first is better, where the data say so.
    pub margin: Option<f32>,
    /// Part of the data that the pair belongs to, where measurements are wanted for each.
    pub slice: Option<String>,
}

/// A prompt, one completion of it, and whether that is desirable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnpairedExample {
    /// The prompt, tokenised alone; the completion goes on from it.
    pub prompt: Vec<u32>,
    /// The completion.
    pub completion: Vec<u32>,
    /// Whether it is desirable.
    pub desirable: bool,
    /// Part of the data that the example belongs to, where measurements are wanted for each.
    pub slice: Option<String>,
}

impl PreferenceExample {
    /// Tokens of the longer of the two sequences that are compared.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.prompt.len() + self.chosen.len().max(self.rejected.len())
    }

    /// The same preference as one desirable and one undesirable completion.
    #[must_use]
    pub fn unpair(self) -> [UnpairedExample; 2] {
        let Self { prompt, chosen, rejected, gold: _, margin: _, slice } = self;
        [
            UnpairedExample {
                prompt: prompt.clone(),
                completion: chosen,
                desirable: true,
                slice: slice.clone(),
            },
            UnpairedExample { prompt, completion: rejected, desirable: false, slice },
        ]
    }
}

impl AsRef<Self> for PreferenceExample {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<Self> for UnpairedExample {
    fn as_ref(&self) -> &Self {
        self
    }
}
