//! Taking length out of attributes.

/// For each attribute the smallest of `candidates` by which the verbosity attribute has to be subtracted until what is
/// left no longer rises with it:
///
/// ```text
/// λ_j = min { λ : spearman(r_j − λ·r_v, r_v) ≤ limit }
/// ```
///
/// The verbosity attribute's own penalty is 0, and so is that of attributes that do not rise with it. An attribute that no
/// candidate suffices for gets `None`. `scores`: one row a text, one entry an attribute; `candidates` in increasing order.
/// `ArmoRM`, Wang et al. 2024, [arXiv:2406.12845](https://arxiv.org/abs/2406.12845), §3.2, with a limit of 0.03.
///
/// # Panics
/// If rows differ in length or there is no attribute `verbosity`.
#[must_use]
pub fn verbosity_penalties(
    scores: &[Vec<f64>],
    verbosity: usize,
    candidates: &[f64],
    limit: f64,
) -> Vec<Option<f64>> {
    let attributes = scores.first().map_or(0, Vec::len);
    assert!(scores.iter().all(|row| row.len() == attributes), "every text has a score of each attribute");
    assert!(scores.is_empty() || verbosity < attributes, "there is no attribute {verbosity}");
    let verbose: Vec<f64> = scores.iter().map(|row| row[verbosity]).collect();
    let ranks_of_verbose = ranks(&verbose);
    let penalty = |attribute: usize| {
        if attribute == verbosity {
            return Some(0.0);
        }
        std::iter::once(&0.0).chain(candidates).copied().find(|penalty| {
            let left: Vec<f64> = scores
                .iter()
                .zip(&verbose)
                .map(|(row, verbose)| row[attribute] - penalty * verbose)
                .collect();
            correlation(&ranks(&left), &ranks_of_verbose) <= limit
        })
    };
    (0..attributes).map(penalty).collect()
}

/// Places in increasing order from 0; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a].total_cmp(&values[b]).is_eq()) {
        let mean = first as f64 + (equal.len() - 1) as f64 / 2.0;
        for &index in equal {
            ranks[index] = mean;
        }
        first += equal.len();
    }
    ranks
}

/// Pearson's correlation; 0 where one side does not vary.
fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (one_mean, other_mean) = (mean(one), mean(other));
    let mut sums = [0.0; 3];
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (a - one_mean, b - other_mean);
        sums = [sums[0] + a * b, sums[1] + a * a, sums[2] + b * b];
    }
    let scale = (sums[1] * sums[2]).sqrt();
    if scale > 0.0 { sums[0] / scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_sufficient_penalty_is_found() {
        // The second attribute is half the verbosity plus something that falls with it; the third falls.
        let scores: Vec<Vec<f64>> = (0..40)
            .map(|i| {
                let (verbose, noise) = (f64::from(i), f64::from((i * 17) % 40) * 0.01);
                vec![verbose, 0.5 * verbose + noise, -verbose]
            })
            .collect();
        let candidates: Vec<f64> = (1..=10).map(|i| f64::from(i) * 0.1).collect();
        let penalties = verbosity_penalties(&scores, 0, &candidates, 0.03);
        assert_eq!((penalties[0], penalties[2]), (Some(0.0), Some(0.0)));
        let second = penalties[1].unwrap();
        assert!((0.5 - 1e-9..=0.6 + 1e-9).contains(&second), "{second}");
        assert_eq!(verbosity_penalties(&scores, 0, &[0.1], 0.03)[1], None);
    }
}
