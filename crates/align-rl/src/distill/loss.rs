//! What a student learns from tokens that it sampled itself.

use align_model::number::UnitInterval;
use burn::tensor::Tensor;

/// What each sampled token is worth: how much likelier it and what it led to are to the teacher than to the student.
///
/// ```text
/// A_t = Σ_{s ≥ t} γ^(s−t)·(log ρ(y_s) − log π(y_s))        ρ: teacher, π: student, within one completion
/// ```
///
/// With γ = 0 each token answers for itself alone; with γ = 1 the gradient is that of the reverse KL divergence between
/// whole completions. The student's term is a constant, as it has to be for that.
///
/// # Source
/// Gu et al. 2023, *`MiniLLM`: Knowledge Distillation of Large Language Models*,
/// [arXiv:2306.08543](https://arxiv.org/abs/2306.08543), §2.2; TRL's `MiniLLMTrainer` differentiates the student's term as
/// well.
///
/// # Panics
/// If there are not as many log-probabilities as the counts say.
#[must_use]
pub fn teacher_advantages(
    student: &[f64],
    teacher: &[f64],
    counts: &[usize],
    discount: UnitInterval,
) -> Vec<f64> {
    let total: usize = counts.iter().sum();
    assert!(student.len() == total && teacher.len() == total, "a log-probability of each for every token");
    let mut advantages: Vec<f64> =
        teacher.iter().zip(student).map(|(teacher, student)| teacher - student).collect();
    let mut start = 0;
    for &count in counts {
        let of_completion = &mut advantages[start..start + count];
        for token in (1..count).rev() {
            of_completion[token - 1] += discount.get() * of_completion[token];
        }
        start += count;
    }
    advantages
}

/// Distillation by policy gradient: tokens that the teacher finds likelier than the student does become likelier.
///
/// ```text
/// L = −A_t·log π(y_t)
/// ```
///
/// # Source
/// Gu et al. 2023, *`MiniLLM`: Knowledge Distillation of Large Language Models*,
/// [arXiv:2306.08543](https://arxiv.org/abs/2306.08543), Eq. 3.
///
/// # Shapes
/// - `log_probs`: of the student's own samples, `[targets]`
/// - `advantages`: of [`teacher_advantages`], `[targets]`
/// - result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs`.
#[must_use]
pub fn minillm_loss(log_probs: Tensor<1>, advantages: Tensor<1>) -> Tensor<1> {
    -log_probs * advantages.detach()
}

#[cfg(test)]
mod tests {
    use align_model::logprob::vector;
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn advantages_are_sums_of_what_follows(
            tokens in prop::collection::vec((-6.0f64..0.0, -6.0f64..0.0), 7), discount in 0.0f64..=1.0,
        ) {
            let (student, teacher): (Vec<f64>, Vec<f64>) = tokens.into_iter().unzip();
            let advantages = teacher_advantages(&student, &teacher, &[3, 0, 4], UnitInterval::new(discount));
            for (start, end) in [(0, 3), (3, 7)] {
                for (token, advantage) in advantages.iter().enumerate().take(end).skip(start) {
                    let term = |s: usize| discount.powi((s - token) as i32) * (teacher[s] - student[s]);
                    let expected: f64 = (token..end).map(term).sum();
                    prop_assert!((advantage - expected).abs() < 1e-9);
                }
            }
        }

        /// With two tokens to choose from, the expected gradient is that of `KL(π ‖ ρ)`.
        #[test]
        fn its_expected_gradient_is_that_of_the_reverse_divergence(z in -3.0f64..3.0, w in -3.0f64..3.0) {
            let log_sigmoid = |x: f64| -(-x).exp().ln_1p();
            let (student, teacher) = ([log_sigmoid(z), log_sigmoid(-z)], [log_sigmoid(w), log_sigmoid(-w)]);
            let advantages = teacher_advantages(&student, &teacher, &[1, 1], UnitInterval::new(1.0));
            // ∂log π/∂z of the two tokens: 1 − p and −p.
            let p = student[0].exp();
            let got = -p * advantages[0] * (1.0 - p) + (1.0 - p) * advantages[1] * p;
            let kl = |z: f64| {
                let (p, log_p, log_not_p) = (log_sigmoid(z).exp(), log_sigmoid(z), log_sigmoid(-z));
                p * (log_p - teacher[0]) + (1.0 - p) * (log_not_p - teacher[1])
            };
            let expected = (kl(z + 1e-5) - kl(z - 1e-5)) / 2e-5;
            prop_assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
    }

    #[test]
    fn the_gradient_is_the_advantage_and_nothing_else() {
        let device = Device::flex().autodiff();
        let log_probs = vector([-1.0, -2.0, -3.0], &device).require_grad();
        let advantages = vector([0.5, -1.0, 0.0], &device);
        let gradients = minillm_loss(log_probs.clone(), advantages).sum().backward();
        let gradient: Vec<f32> = log_probs.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
        assert_eq!(gradient, [-0.5, 1.0, 0.0]);
    }
}
