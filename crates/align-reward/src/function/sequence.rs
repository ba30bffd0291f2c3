//! Models that score token sequences, as rewards.

use std::fmt;

use super::{RewardError, RewardFn};
use crate::{rollout::Rollout, score::Score};

/// A reward that a model gives to token sequences: `encode` turns a rollout into the model's tokens, `score` gives
/// one number for each sequence of a batch.
///
/// A rollout that cannot be encoded, because it is too long or the chat template refuses it, is unscored for the
/// reason that `encode` gives; the model sees only the others.
///
/// ```
/// use align_reward::{function::{score_rollouts, sequence_fn}, rollout::Rollout, score::Score};
///
/// let encode = |rollout: &Rollout| rollout.tokens.clone().ok_or_else(|| "no tokens".to_string());
/// let mut model = sequence_fn("model", encode, |batch| Ok(batch.iter().map(|ids| ids.len() as f64).collect()));
/// let rollouts = [Rollout::new("p", "c").with_tokens(vec![1, 2]), Rollout::new("p", "c")];
/// let scored = score_rollouts(&mut model, &rollouts)?;
/// assert_eq!(scored.scores, [Score::Value(2.0), Score::unscored("no tokens")]);
/// # Ok::<(), align_reward::function::RewardError>(())
/// ```
pub fn sequence_fn<E, S>(name: impl Into<String>, encode: E, score: S) -> SequenceFn<E, S>
where
    E: FnMut(&Rollout) -> Result<Vec<u32>, String>,
    S: FnMut(&[Vec<u32>]) -> Result<Vec<f64>, RewardError>,
{
    SequenceFn { name: name.into(), encode, score }
}

/// See [`sequence_fn`].
pub struct SequenceFn<E, S> {
    name: String,
    encode: E,
    score: S,
}

impl<E, S> RewardFn for SequenceFn<E, S>
where
    E: FnMut(&Rollout) -> Result<Vec<u32>, String>,
    S: FnMut(&[Vec<u32>]) -> Result<Vec<f64>, RewardError>,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let mut sequences = Vec::with_capacity(rollouts.len());
        let mut reasons = Vec::with_capacity(rollouts.len());
        for rollout in rollouts {
            match (self.encode)(rollout) {
                Ok(sequence) => {
                    sequences.push(sequence);
                    reasons.push(None);
                }
                Err(reason) => reasons.push(Some(reason)),
            }
        }
        let values = if sequences.is_empty() { Vec::new() } else { (self.score)(&sequences)? };
        if values.len() != sequences.len() {
            let (expected, found) = (sequences.len(), values.len());
            return Err(RewardError::WrongCount { function: self.name.clone(), expected, found });
        }
        let mut values = values.into_iter();
        let score = |reason: Option<String>| match reason {
            Some(reason) => Score::unscored(reason),
            None => values.next().into(),
        };
        Ok(reasons.into_iter().map(score).collect())
    }
}

impl<E, S> fmt::Debug for SequenceFn<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequenceFn").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_places_and_a_wrong_count_is_seen() {
        let encode = |rollout: &Rollout| rollout.tokens.clone().ok_or_else(|| "none".to_string());
        let rollouts: Vec<Rollout> = (0..5u32)
            .map(|n| Rollout::new("p", "c").with_tokens(vec![n; n as usize]))
            .map(|rollout| if rollout.tokens == Some(vec![2, 2]) { Rollout::new("p", "c") } else { rollout })
            .collect();
        let mut model = sequence_fn("m", encode, |batch| {
            assert_eq!(batch.len(), 4);
            Ok(batch.iter().map(|ids| ids.len() as f64).collect())
        });
        let values: Vec<_> = model.score(&rollouts).unwrap().iter().map(Score::value).collect();
        assert_eq!(values, [Some(0.0), Some(1.0), None, Some(3.0), Some(4.0)]);
        assert!(model.score(&rollouts[2..3]).unwrap()[0].is_unscored());
        let mut short = sequence_fn("short", encode, |_| Ok(vec![f64::NAN]));
        assert!(matches!(short.score(&rollouts), Err(RewardError::WrongCount { expected: 4, found: 1, .. })));
        assert!(short.score(&rollouts[..1]).unwrap()[0].is_unscored());
    }
}
