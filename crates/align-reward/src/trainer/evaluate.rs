//! How well a reward model ranks pairs that it is not trained on.

use std::collections::BTreeMap;

use align_model::{causal_lm::CausalLm, preference::PreferenceExample};
use burn::module::Module as _;

use super::{
    RewardConfig, RewardTrainingError, SliceReport,
    example::Group,
    objective::PairSettings,
    report::{by_slice, spread, wins},
    scoring::{Layout, check_groups, lay_out},
};
use crate::model::RewardModel;

/// What an evaluation measured, over all pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct PairEvaluation {
    /// Mean loss, by the objective of training.
    pub loss: f64,
    /// Share of pairs whose chosen response scores higher; a tie is wrong.
    pub accuracy: f64,
    /// Mean difference of chosen and rejected scores.
    pub margin: f64,
    /// The lowest score.
    pub min_reward: f64,
    /// The mean score.
    pub mean_reward: f64,
    /// The highest score.
    pub max_reward: f64,
    /// Pairs whose scores are equal.
    pub ties: usize,
    /// Pairs.
    pub pairs: usize,
    /// The same by the parts of the data that pairs say they belong to.
    pub slices: BTreeMap<String, SliceReport>,
    /// Chosen less rejected, pair by pair.
    pub differences: Vec<f64>,
}

impl PairEvaluation {
    /// Names as TRL logs them, without `eval_`, and values; those of slices carry the slice behind a stroke.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let plain = [
            ("loss", self.loss),
            ("accuracy", self.accuracy),
            ("margin", self.margin),
            ("min_reward", self.min_reward),
            ("mean_reward", self.mean_reward),
            ("max_reward", self.max_reward),
        ];
        let of_slice = |(slice, report): (&String, &SliceReport)| {
            [(format!("accuracy/{slice}"), report.accuracy), (format!("margin/{slice}"), report.margin)]
        };
        let slices = self.slices.iter().flat_map(of_slice);
        plain.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(slices).collect()
    }
}

/// Scores pairs without gradients, `micro_batch_size` of them in a forward pass.
///
/// # Errors
/// If there are no pairs, one does not fit the model, or the objective does not learn from pairs.
pub fn evaluate_pairs<M: CausalLm>(
    model: &RewardModel<M>,
    pairs: &[PreferenceExample],
    config: &RewardConfig,
) -> Result<PairEvaluation, RewardTrainingError> {
    let expected = config.objective.data();
    let settings = PairSettings::of(config.objective)
        .ok_or(RewardTrainingError::OtherData { found: "pairs", expected })?;
    settings.check(pairs)?;
    let groups: Vec<Group<'_>> = pairs.iter().map(Group::of_pair).collect();
    check_groups(&groups, model.backbone.max_positions())?;
    let model = model.valid();
    let (mut loss, mut scores) = (0.0, Vec::with_capacity(2 * pairs.len()));
    let size = config.micro_batch_size.get();
    for (pairs, groups) in pairs.chunks(size).zip(groups.chunks(size)) {
        let Layout { batch, positions } = lay_out(groups, model.backbone.shares_prompts());
        let said = model.scores(&batch, &positions);
        loss += settings.sum(said.clone(), pairs).into_scalar::<f64>();
        scores.extend(said.into_data().iter::<f64>());
    }
    let differences: Vec<f64> = scores.chunks(2).map(|pair| pair[0] - pair[1]).collect();
    let [accuracy, margin] = wins(&differences);
    let [min_reward, mean_reward, max_reward] = spread(&scores);
    Ok(PairEvaluation {
        loss: loss / pairs.len() as f64,
        accuracy,
        margin,
        min_reward,
        mean_reward,
        max_reward,
        ties: differences.iter().filter(|difference| difference.abs() <= 0.0).count(),
        pairs: pairs.len(),
        slices: by_slice(pairs, &differences),
        differences,
    })
}
