//! What a step of preference learning measured.

use std::collections::BTreeMap;

use align_model::{number::Proportion, train::Report};

/// What a step measured, under the names that TRL logs. Means are over the step's pairs, examples or tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferenceReport {
    metrics: Vec<(&'static str, f64)>,
    of_slices: Vec<(String, f64)>,
}

impl PreferenceReport {
    pub(crate) fn new(metrics: Vec<(&'static str, f64)>, of_slices: Vec<(String, f64)>) -> Self {
        Self { metrics, of_slices }
    }

    /// With the 95 % interval of the share of `pairs` whose chosen completion has the higher reward.
    pub(crate) fn with_interval(mut self, pairs: usize) -> Self {
        if let Some(accuracy) = self.get("rewards/accuracies") {
            let right = Proportion::new((accuracy * pairs as f64).round() as usize, pairs);
            self.metrics.push(("rewards/accuracies_low", right.low));
            self.metrics.push(("rewards/accuracies_high", right.high));
        }
        self
    }

    /// The measurement of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let of_all = self.metrics.iter().find(|(known, _)| *known == name).map(|&(_, value)| value);
        of_all.or_else(|| self.of_slices.iter().find(|(known, _)| known == name).map(|&(_, value)| value))
    }

    /// The step's loss.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.get("loss").unwrap_or(f64::NAN)
    }
}

impl Report for PreferenceReport {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        self.metrics.clone()
    }

    fn named_metrics(&self) -> Vec<(String, f64)> {
        self.of_slices.clone()
    }
}

/// The mean of some numbers; `None` of none.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, count), x| (sum + x, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Means of each slice's numbers, under `name/SLICE`.
pub(crate) fn by_slice<'a>(
    name: &str,
    values: impl IntoIterator<Item = (&'a Option<String>, f64)>,
) -> Vec<(String, f64)> {
    let mut slices: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (slice, value) in values {
        if let Some(slice) = slice {
            slices.entry(slice).or_default().push(value);
        }
    }
    slices
        .into_iter()
        .filter_map(|(slice, values)| Some((format!("{name}/{slice}"), mean(values)?)))
        .collect()
}
