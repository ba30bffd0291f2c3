//! What a step of a reward model's training measured.

use std::collections::BTreeMap;

use align_model::{preference::PreferenceExample, train::Report};

/// What a step measured. Rewards are the head's numbers before the update.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardReport {
    /// Mean loss over the step's examples.
    pub loss: f64,
    /// The lowest reward.
    pub min_reward: f64,
    /// The mean reward.
    pub mean_reward: f64,
    /// The highest reward.
    pub max_reward: f64,
    /// Share of pairs (in rankings: of all pairs of each list) whose better response scores higher, a tie being wrong; of
    /// grades, share that the model would give, its median grade being what it gives. Ratings have none.
    pub accuracy: Option<f64>,
    /// Mean difference between the better and the worse response's scores, over the same pairs.
    pub margin: Option<f64>,
    /// Mean distance of scores from ratings, or of the grades that the model would give from the true ones.
    pub absolute_error: Option<f64>,
    /// Pairs of this step whose responses are the same tokens: they teach nothing but the centre.
    pub identical_pairs: usize,
    /// The same by the parts of the data that pairs say they belong to.
    pub slices: BTreeMap<String, SliceReport>,
    /// Tokens seen since the run began; a shared prompt counts for each response.
    pub num_tokens: u64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Rate of this step's update.
    pub learning_rate: f64,
}

/// What pairs of one part of the data measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SliceReport {
    /// How many there are.
    pub pairs: usize,
    /// Share whose chosen response scores higher.
    pub accuracy: f64,
    /// Mean difference of the scores.
    pub margin: f64,
}

impl Report for RewardReport {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![
            ("loss", self.loss),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("min_reward", self.min_reward),
            ("mean_reward", self.mean_reward),
            ("max_reward", self.max_reward),
            ("num_tokens", self.num_tokens as f64),
        ];
        let optional =
            [("accuracy", self.accuracy), ("margin", self.margin), ("absolute_error", self.absolute_error)];
        metrics.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        if self.identical_pairs > 0 {
            metrics.push(("identical_pairs", self.identical_pairs as f64));
        }
        metrics
    }

    fn named_metrics(&self) -> Vec<(String, f64)> {
        let named = |(slice, report): (&String, &SliceReport)| {
            [(format!("accuracy/{slice}"), report.accuracy), (format!("margin/{slice}"), report.margin)]
        };
        self.slices.iter().flat_map(named).collect()
    }
}

/// Lowest, mean and highest of some numbers.
pub(super) fn spread(values: &[f64]) -> [f64; 3] {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [low, values.iter().sum::<f64>() / values.len() as f64, high]
}

/// Share of differences above 0, and their mean.
pub(super) fn wins(differences: &[f64]) -> [f64; 2] {
    let count = differences.len() as f64;
    let right = differences.iter().filter(|&&difference| difference > 0.0).count();
    [right as f64 / count, differences.iter().sum::<f64>() / count]
}

/// Measurements of each part of the data. `differences`: chosen less rejected, one a pair.
pub(super) fn by_slice(pairs: &[PreferenceExample], differences: &[f64]) -> BTreeMap<String, SliceReport> {
    let mut slices: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (pair, &difference) in pairs.iter().zip(differences) {
        if let Some(slice) = &pair.slice {
            slices.entry(slice.clone()).or_default().push(difference);
        }
    }
    let report = |differences: Vec<f64>| {
        let [accuracy, margin] = wins(&differences);
        SliceReport { pairs: differences.len(), accuracy, margin }
    };
    slices.into_iter().map(|(slice, differences)| (slice, report(differences))).collect()
}
