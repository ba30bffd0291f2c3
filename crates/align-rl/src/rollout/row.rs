//! A rollout as a person reads it.

use std::{collections::BTreeMap, fmt};

use align_reward::{
    rollout::{FinishReason, Prompt, Rollout},
    score::Score,
};
use serde::{Deserialize, Serialize};

/// One rollout of a run: what was asked and answered, what it was worth, and what the policy made of that.
///
/// Written as a line of JSON; its [`Display`](fmt::Display) is for a terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutRow {
    /// The optimiser step that it was sampled for.
    pub step: u64,
    /// Rows of one step and prompt share this number.
    pub group: u64,
    /// What was asked.
    pub prompt: Prompt,
    /// What was answered.
    pub completion: String,
    /// What each reward function gave.
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
    /// Why a reward function gave nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unscored: BTreeMap<String, String>,
    /// The reward that the policy learns from; `None` where there is none.
    pub reward: Option<f64>,
    /// The advantage, of several the mean over tokens; `None` where there is none.
    pub advantage: Option<f64>,
    /// Tokens of the completion.
    pub tokens: usize,
    /// Why it ended.
    pub finish: FinishReason,
}

impl RolloutRow {
    /// A row that nothing has scored yet.
    #[must_use]
    pub fn new(step: u64, rollout: &Rollout) -> Self {
        Self {
            step,
            group: rollout.group,
            prompt: rollout.prompt.clone(),
            completion: rollout.completion.clone(),
            scores: BTreeMap::new(),
            unscored: BTreeMap::new(),
            reward: None,
            advantage: None,
            tokens: rollout.tokens.as_ref().map_or(0, Vec::len),
            finish: rollout.finish,
        }
    }

    /// The row with what a reward function said.
    #[must_use]
    pub fn with_score(mut self, function: impl Into<String>, score: &Score) -> Self {
        match score {
            Score::Value(value) => drop(self.scores.insert(function.into(), *value)),
            Score::Unscored { reason } => drop(self.unscored.insert(function.into(), reason.clone())),
        }
        self
    }
}

impl fmt::Display for RolloutRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} · group {}", self.step, self.group)?;
        match self.reward {
            Some(reward) => write!(f, " · reward {reward:.4}")?,
            None => write!(f, " · no reward")?,
        }
        if let Some(advantage) = self.advantage {
            write!(f, " · advantage {advantage:+.4}")?;
        }
        let finish = match self.finish {
            FinishReason::Stop => "ended by itself",
            FinishReason::Length => "ran out of room",
            FinishReason::Cancelled => "was cancelled",
        };
        writeln!(f, " · {} tokens, {finish}", self.tokens)?;
        for (function, score) in &self.scores {
            writeln!(f, "  {function}: {score:.4}")?;
        }
        for (function, reason) in &self.unscored {
            writeln!(f, "  {function}: unscored, {reason}")?;
        }
        match &self.prompt {
            Prompt::Text(text) => block(f, "prompt", text)?,
            Prompt::Messages(messages) => {
                messages.iter().try_for_each(|message| block(f, message.role(), &message.text()))?;
            }
        }
        block(f, "completion", &self.completion)
    }
}

/// A heading and an indented text.
fn block(f: &mut fmt::Formatter<'_>, heading: &str, text: &str) -> fmt::Result {
    writeln!(f, "  [{heading}]")?;
    text.lines().try_for_each(|line| writeln!(f, "    {line}"))
}

#[cfg(test)]
mod tests {
    use align_model::chat::Message;

    use super::*;

    #[test]
    fn a_row_survives_json_and_reads_well() {
        let rollout =
            Rollout::new(vec![Message::user("2 + 2?")], "It is\n4.").with_tokens(vec![1, 2, 3]).in_group(5);
        let mut row = RolloutRow::new(7, &rollout)
            .with_score("exact", &Score::Value(1.0))
            .with_score("judge", &Score::unscored("timed out"));
        row.reward = Some(0.5);
        row.advantage = Some(-0.25);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<RolloutRow>(&text).unwrap(), row);
        let expected = "step 7 · group 5 · reward 0.5000 · advantage -0.2500 · 3 tokens, ended by itself\n  \
                        exact: 1.0000\n  judge: unscored, timed out\n  [user]\n    2 + 2?\n  [completion]\n    \
                        It is\n    4.\n";
        assert_eq!(row.to_string(), expected);
    }
}
