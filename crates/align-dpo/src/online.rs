//! Pairs that the policy itself writes: sampled, judged, learnt from, and never tokenised a second time.

use align_model::{
    causal_lm::IncrementalLm,
    generate::{GenerateError, GenerationConfig, generate},
    preference::PreferenceExample,
    tokenizer::Tokenizer,
};

/// Two completions of one prompt, to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duel<'a> {
    /// The prompt's place among those that were given.
    pub prompt_index: usize,
    /// The prompt.
    pub prompt: &'a [u32],
    /// One completion, its end token included.
    pub a: &'a [u32],
    /// The other.
    pub b: &'a [u32],
}

/// What became of the completions of a round.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OnlineRound {
    /// Pairs with the winner as the chosen completion, in the order of their prompts.
    pub examples: Vec<PreferenceExample>,
    /// Duels that the judge did not decide at all.
    pub unjudged: usize,
    /// Duels that ended even; TRL takes the first completion for the better one.
    pub ties: usize,
    /// Duels of equal completions, which were not shown to the judge.
    pub identical: usize,
}

/// A round came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnlineError<E: std::error::Error + 'static> {
    /// Completions could not be sampled.
    #[error("completions cannot be sampled")]
    Generate(#[from] GenerateError),
    /// An odd number of completions.
    #[error("`samples` = {samples} does not make pairs: use 2, or another even number")]
    OddSamples {
        /// `samples`
        samples: usize,
    },
    /// The judge failed.
    #[error("the judge failed")]
    Judge(#[source] E),
    /// More or fewer judgements than duels.
    #[error("the judge gave {found} judgements of {expected} duels")]
    Judgements {
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A judgement that is no probability.
    #[error("the judge gave duel {duel} the probability {value}, which is not from 0 to 1")]
    NotAProbability {
        /// Its place among the duels; the first is 0.
        duel: usize,
        /// What it was given.
        value: f64,
    },
}

/// One round of online or iterative preference learning: the policy completes prompts, and a judge says which of two
/// completions is better. [`DpoTrainer`](crate::DpoTrainer) learns from the examples.
///
/// Completions of a prompt meet in pairs, the first and the second, the third and the fourth. `judge` gives the probability
/// that `a` is better than `b`, or `None` where it cannot tell. A round with another `generation.seed` has other
/// completions.
///
/// Guo et al. 2024, *Direct Language Model Alignment from Online AI Feedback*,
/// [arXiv:2402.04792](https://arxiv.org/abs/2402.04792).
///
/// # Errors
/// If completions cannot be sampled, do not make pairs, or the judge fails or gives what is no probability.
pub fn online_round<M: IncrementalLm, E: std::error::Error + 'static>(
    policy: &M,
    prompts: &[Vec<u32>],
    generation: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
    mut judge: impl FnMut(&[Duel<'_>]) -> Result<Vec<Option<f64>>, E>,
) -> Result<OnlineRound, OnlineError<E>> {
    let samples = generation.samples.get();
    if !samples.is_multiple_of(2) {
        return Err(OnlineError::OddSamples { samples });
    }
    let completions: Vec<Vec<Vec<u32>>> = generate(policy, prompts, generation, tokenizer)?
        .into_iter()
        .map(|of_prompt| of_prompt.into_iter().map(|generation| generation.tokens).collect())
        .collect();
    let mut round = OnlineRound::default();
    let mut duels = Vec::new();
    for (prompt_index, of_prompt) in completions.iter().enumerate() {
        for two in of_prompt.chunks(2) {
            if two[0] == two[1] {
                round.identical += 1;
            } else {
                duels.push(Duel { prompt_index, prompt: &prompts[prompt_index], a: &two[0], b: &two[1] });
            }
        }
    }
    if duels.is_empty() {
        return Ok(round);
    }
    let judgements = judge(&duels).map_err(OnlineError::Judge)?;
    if judgements.len() != duels.len() {
        return Err(OnlineError::Judgements { expected: duels.len(), found: judgements.len() });
    }
    for (duel, (Duel { prompt, a, b, .. }, judgement)) in duels.into_iter().zip(judgements).enumerate() {
        let Some(value) = judgement else {
            round.unjudged += 1;
            continue;
        };
        if !(0.0..=1.0).contains(&value) {
            return Err(OnlineError::NotAProbability { duel, value });
        }
        let (chosen, rejected) = if value > 0.5 { (a, b) } else { (b, a) };
        if (value - 0.5).abs() < f64::EPSILON {
            round.ties += 1;
            continue;
        }
        round.examples.push(PreferenceExample {
            prompt: prompt.to_vec(),
            chosen: chosen.to_vec(),
            rejected: rejected.to_vec(),
            gold: None,
            margin: None,
            slice: None,
        });
    }
    Ok(round)
}
