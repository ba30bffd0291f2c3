//! Who says which of two completions is better.

use std::fmt;

use align_model::checkpoint::{State, StateError};
use align_reward::{
    judge::{Comparison, JudgeError, PairwiseJudge, Verdict, judge_pairs},
    rollout::{FinishReason, Rollout},
    score::Score,
};

use super::OnlineError;
use crate::{
    rollout::Sampled,
    scoring::{RewardScores, Rewards},
};

/// What completions are judged by.
pub enum Feedback {
    /// A judge, who sees both. A resumed run gets it as it was made: one that remembers what it saw has to see to that
    /// itself.
    Judge(Box<dyn PairwiseJudge + Send>),
    /// Rewards, which see each for itself: the higher one wins, and `P(a ≻ b) = σ(r_a − r_b)`.
    Rewards(Rewards),
}

/// Two completions of one prompt.
#[derive(Debug)]
pub(super) struct Duel {
    /// What the policy wrote.
    pub(super) a: Sampled,
    /// What it, its reference or their mixture wrote.
    pub(super) b: Sampled,
}

/// What is known of a duel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judgement {
    /// P(a ≻ b)
    pub(super) verdict: Verdict,
    /// Rewards of both, where rewards judge and both have one.
    pub(super) scores: Option<[f64; 2]>,
}

/// What is known of all duels of a step.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) judgements: Vec<Judgement>,
    /// What rewards said, where rewards judge: of both completions of the first duel, of the second, and so on.
    pub(super) scores: Option<RewardScores>,
}

impl Feedback {
    /// A judge.
    pub fn judge(judge: impl PairwiseJudge + Send + 'static) -> Self {
        Self::Judge(Box::new(judge))
    }

    /// Judges duels. Rewards of completions that did not end by themselves are lowered by `penalty`.
    pub(super) fn of(&mut self, duels: &[Duel], penalty: Option<f64>) -> Result<Judged, OnlineError> {
        match self {
            Self::Judge(judge) => Ok(Judged { judgements: by_judge(&mut **judge, duels)?, scores: None }),
            Self::Rewards(rewards) => by_rewards(rewards, duels, penalty),
        }
    }

    /// Writes down what later judgements depend on.
    pub(super) fn save(&self, state: &mut State) -> Result<(), StateError> {
        match self {
            Self::Judge(_) => Ok(()),
            Self::Rewards(rewards) => rewards.save(state),
        }
    }

    /// Goes on from what was saved.
    pub(super) fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        match self {
            Self::Judge(_) => Ok(()),
            Self::Rewards(rewards) => rewards.restore(state),
        }
    }
}

impl Duel {
    /// Whether both are the same tokens.
    pub(super) fn is_identical(&self) -> bool {
        self.a.trajectory.tokens == self.b.trajectory.tokens
    }

    /// Tokens of both completions, with their prompt before each.
    pub(super) fn tokens(&self) -> u64 {
        let whole = |sampled: &Sampled| sampled.trajectory.prompt.len() + sampled.trajectory.tokens.len();
        (whole(&self.a) + whole(&self.b)) as u64
    }
}

impl Judgement {
    /// P(a ≻ b), if there is one.
    pub(super) fn preference(&self) -> Option<f64> {
        self.verdict.preference()
    }

    /// By how much `a` is better, in no unit that matters; 0 for a tie.
    pub(super) fn lead(&self) -> Option<f64> {
        // Rewards that differ by little have a preference that rounds to one half, and a winner all the same.
        let of_scores = self.scores.map(|[a, b]| a - b);
        of_scores.or_else(|| self.preference().map(|preference| preference - 0.5))
    }

    /// 1 if `a` won, 0 if `b` did, one half of a tie.
    pub(super) fn win(&self) -> Option<f64> {
        let lead = self.lead()?;
        Some(if lead.abs() > 0.0 { f64::midpoint(1.0, lead.signum()) } else { 0.5 })
    }
}

/// Equal completions are a tie, which needs no judge.
fn by_judge(judge: &mut dyn PairwiseJudge, duels: &[Duel]) -> Result<Vec<Judgement>, JudgeError> {
    let comparisons: Vec<Comparison> = duels
        .iter()
        .filter(|duel| !duel.is_identical())
        .map(|duel| Comparison { a: duel.a.rollout.clone(), b: duel.b.rollout.clone() })
        .collect();
    let mut verdicts = judge_pairs(judge, &comparisons)?.into_iter();
    let judged = duels.iter().map(|duel| {
        let tie = Verdict::Preference(0.5);
        // There are as many verdicts as comparisons.
        let verdict = if duel.is_identical() { tie } else { verdicts.next().unwrap_or(tie) };
        Judgement { verdict, scores: None }
    });
    Ok(judged.collect())
}

fn by_rewards(rewards: &mut Rewards, duels: &[Duel], penalty: Option<f64>) -> Result<Judged, OnlineError> {
    let rollouts: Vec<Rollout> =
        duels.iter().flat_map(|duel| [duel.a.rollout.clone(), duel.b.rollout.clone()]).collect();
    let found = rewards.score(&rollouts)?;
    rewards.follow(&found);
    let lowered = |(score, rollout): (Score, &Rollout)| match (score, penalty) {
        (Score::Value(value), Some(penalty)) if rollout.finish != FinishReason::Stop => {
            Score::Value(value - penalty)
        }
        (score, _) => score,
    };
    let scores: Vec<Score> = found.totals.iter().cloned().zip(&rollouts).map(lowered).collect();
    let judgement = |pair: &[Score]| match pair {
        [Score::Value(a), Score::Value(b)] => {
            Judgement { verdict: Verdict::from(1.0 / (1.0 + (b - a).exp())), scores: Some([*a, *b]) }
        }
        [Score::Unscored { reason }, _] | [_, Score::Unscored { reason }] => {
            Judgement { verdict: Verdict::unjudged(reason.clone()), scores: None }
        }
        _ => Judgement { verdict: Verdict::unjudged("a pair is incomplete"), scores: None },
    };
    Ok(Judged { judgements: scores.chunks(2).map(judgement).collect(), scores: Some(found) })
}

impl fmt::Debug for Feedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Judge(judge) => f.debug_tuple("Judge").field(&judge.name()).finish(),
            Self::Rewards(rewards) => f.debug_tuple("Rewards").field(rewards).finish(),
        }
    }
}
