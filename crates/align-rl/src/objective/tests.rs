use std::num::NonZeroUsize;

use align_model::number::Positive;
use burn::tensor::Device;
use proptest::prelude::*;

use super::*;
use crate::{
    kl::KlEstimator,
    loss::{AdaptiveEntropy, GammaShape},
};

/// Everything that is known of a token, on the host.
#[derive(Debug, Clone, Copy)]
struct Token {
    policy: f32,
    old: f32,
    sampling: f32,
    reference: f32,
    advantage: f32,
    entropy: f32,
    is_kept: bool,
}

impl Token {
    fn fresh(log_prob: f32, advantage: f32) -> Self {
        let (policy, old, sampling, reference) = (log_prob, log_prob, log_prob, log_prob);
        Self { policy, old, sampling, reference, advantage, entropy: 1.0, is_kept: true }
    }
}

fn packed(sequences: &[Vec<Token>]) -> PolicyTokens {
    let device = Device::flex().autodiff();
    let read = |f: &dyn Fn(&Token) -> f32| vector(sequences.iter().flatten().map(f), &device);
    PolicyTokens {
        log_probs: read(&|t| t.policy).require_grad(),
        old_log_probs: read(&|t| t.old),
        sampling_log_probs: Some(read(&|t| t.sampling)),
        reference_log_probs: Some(read(&|t| t.reference)),
        divergences: Some(read(&|t| t.entropy * 0.5)),
        entropies: read(&|t| t.entropy).require_grad(),
        advantages: read(&|t| t.advantage),
        is_kept: Some(read(&|t| f32::from(u8::from(t.is_kept)))),
        is_penalized: Some(read(&|t| f32::from(u8::from(t.is_kept)))),
        counts: sequences.iter().map(Vec::len).collect(),
    }
}

fn totals(sequences: &[Vec<Token>]) -> StepTotals {
    let kept_tokens = sequences.iter().flatten().filter(|t| t.is_kept).count();
    let tokens = sequences.iter().map(Vec::len).sum();
    StepTotals { kept_tokens, ..StepTotals::new(sequences.len(), tokens) }
}

/// The loss and its gradient at each token.
fn loss_and_gradient(
    objective: &PolicyObjective,
    tokens: &PolicyTokens,
    totals: StepTotals,
) -> (f64, Vec<f64>) {
    let loss = objective.share(tokens, totals).loss;
    let gradients = loss.backward();
    let gradient = tokens.log_probs.grad(&gradients);
    let gradient = gradient.map_or_else(|| vec![0.0; tokens.counts.iter().sum()], host);
    (loss.into_scalar::<f64>(), gradient)
}

fn host(values: Tensor<1>) -> Vec<f64> {
    values.into_data().iter::<f64>().collect()
}

fn presets() -> Vec<Preset> {
    let names = [
        "grpo",
        "dr_grpo",
        "dapo",
        "bnpo",
        "gspo",
        "gspo_token",
        "cispo",
        "sapo",
        "vespo",
        "luspo",
        "gmpo",
        "rloo",
        "reinforce_plus_plus",
        "reinforce_plus_plus_baseline",
        "re_max",
        "opo",
        "gdpo",
        "kl_cov",
    ];
    names.iter().map(|name| serde_json::from_value((*name).into()).unwrap()).collect()
}

/// Presets, and one with everything that can be added.
fn objectives() -> Vec<PolicyObjective> {
    let length = NonZeroUsize::new(16).unwrap();
    let penalty = KlPenalty { is_bias_corrected: true, ..KlPenalty::k3(Positive::new(0.1)) };
    let full = PolicyObjective {
        kl: Some(penalty),
        importance: Some(ImportanceCorrection::TokenTruncated {
            low: NonNegative::new(0.0),
            high: Positive::new(2.0),
        }),
        off_policy_threshold: Some(NonNegative::new(0.2)),
        entropy: Some(EntropyBonus { coefficient: NonNegative::new(0.01), adaptive: None }),
        ..PolicyObjective::dapo()
    };
    let geometric = PolicyObjective { importance: full.importance, ..PolicyObjective::gmpo() };
    presets().into_iter().map(|preset| preset.objective(length)).chain([full, geometric, dppo()]).collect()
}

#[test]
fn ratios_of_fresh_data_are_exactly_one() {
    let sequences =
        [vec![Token::fresh(-0.3, 1.0), Token::fresh(-7.123, -2.0)], vec![Token::fresh(-2.7, 0.5)]];
    for objective in objectives() {
        let share = objective.share(&packed(&sequences), totals(&sequences));
        assert_eq!(host(share.ratios), [1.0; 3]);
        assert_eq!(host(share.clipped_low + share.clipped_high), [0.0; 3]);
    }
}

#[test]
fn fresh_data_has_the_policy_gradient() {
    let sequences = [vec![Token::fresh(-0.3, 1.5), Token::fresh(-1.0, 1.5)], vec![Token::fresh(-2.7, -0.5)]];
    let (tokens, totals) = (packed(&sequences), totals(&sequences));
    let (_, of_tokens) = loss_and_gradient(&PolicyObjective::reinforce(), &tokens, totals);
    assert_eq!(of_tokens, [-0.5, -0.5, f64::from(0.5_f32 / 3.0)]);
    for objective in [
        PolicyObjective::dapo(),
        PolicyObjective::cispo(),
        PolicyObjective::vespo(),
        PolicyObjective::kl_cov(),
        dppo(),
        PolicyObjective { surrogate: Surrogate::Ratio {}, ..PolicyObjective::default() },
        PolicyObjective {
            surrogate: Surrogate::Dro { beta: Positive::new(1.0) },
            ..PolicyObjective::default()
        },
    ] {
        let (_, gradient) = loss_and_gradient(&objective, &tokens, totals);
        for (a, b) in gradient.iter().zip(&of_tokens) {
            assert!((a - b).abs() < 1e-6, "{objective:?}: {gradient:?}");
        }
    }
}

#[test]
fn a_ceiling_bounds_ratios_of_bad_tokens() {
    let token = |advantage| Token { policy: -0.1, ..Token::fresh(-2.1, advantage) };
    let ceiling = Some(Positive::new(3.0));
    let surrogate = Surrogate::Clipped { low: NonNegative::new(0.2), high: NonNegative::new(0.2), ceiling };
    let objective = PolicyObjective { surrogate, ..PolicyObjective::default() };
    let sequences = [vec![token(-1.0)]];
    let (loss, gradient) = loss_and_gradient(&objective, &packed(&sequences), totals(&sequences));
    assert!((loss - 3.0).abs() < 1e-6 && gradient == [0.0], "{loss} {gradient:?}");
    let (free, gradient) =
        loss_and_gradient(&PolicyObjective::dapo(), &packed(&sequences), totals(&sequences));
    assert!((free - 2.0_f64.exp()).abs() < 1e-5 && gradient[0] > 7.0);
    let sequences = [vec![token(1.0)]];
    let (loss, gradient) = loss_and_gradient(&objective, &packed(&sequences), totals(&sequences));
    assert!((loss + 1.2).abs() < 1e-6 && gradient == [0.0], "{loss} {gradient:?}");
}

fn dppo() -> PolicyObjective {
    let (low, high) = (NonNegative::new(0.1), NonNegative::new(0.2));
    let surrogate = Surrogate::Dppo { low, high, ceiling: Positive::new(20.0) };
    PolicyObjective { surrogate, ..PolicyObjective::default() }
}

#[test]
fn a_probability_may_change_so_much() {
    // π from π_old, and the advantage: up by 0.3 and 0.15 where it should rise, down by 0.3 where it should and should not
    // fall, and a rare token that is a hundred times likelier.
    let token = |policy: f32, old: f32, advantage| Token {
        policy: policy.ln(),
        old: old.ln(),
        ..Token::fresh(-1.0, advantage)
    };
    let sequences = [vec![
        token(0.5, 0.2, 1.0),
        token(0.35, 0.2, 1.0),
        token(0.2, 0.5, -1.0),
        token(0.2, 0.5, 1.0),
        token(1e-2, 1e-4, 1.0),
    ]];
    let share = dppo().share(&packed(&sequences), totals(&sequences));
    assert_eq!(host(share.clipped_high), [1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(host(share.clipped_low), [0.0, 0.0, 1.0, 0.0, 0.0]);
    let (_, gradient) = loss_and_gradient(&dppo(), &packed(&sequences), totals(&sequences));
    for (g, expected) in gradient.iter().zip([0.0, -1.75 / 5.0, 0.0, -0.4 / 5.0, -20.0 / 5.0]) {
        assert!((g - expected).abs() < 1e-5, "{gradient:?}");
    }
}

#[test]
fn nothing_overflows() {
    let extreme = |policy, old| Token { policy, old, ..Token::fresh(-1.0, -1.0) };
    let sequences = [vec![extreme(-1e-3, -400.0), extreme(-400.0, -1e-3)], vec![extreme(-1e-3, -90.0); 3]];
    for objective in objectives() {
        let (loss, gradient) = loss_and_gradient(&objective, &packed(&sequences), totals(&sequences));
        assert!(
            loss.is_finite() && gradient.iter().all(|g| g.is_finite()),
            "{objective:?}: {loss} {gradient:?}"
        );
    }
}

#[test]
fn importance_is_corrected_as_its_kind_says() {
    let token = |sampling| Token { sampling, ..Token::fresh(-1.0, -1.0) };
    // ρ = [2, 4] and [1/2]
    let (ln2, low) = (2.0_f32.ln(), NonNegative::new(0.75));
    let sequences = [vec![token(-1.0 - ln2), token(-1.0 - 2.0 * ln2)], vec![token(-1.0 + ln2)]];
    let high = Positive::new(3.0);
    let weights = |correction| {
        let objective = PolicyObjective { importance: Some(correction), ..PolicyObjective::dapo() };
        let found = host(objective.share(&packed(&sequences), totals(&sequences)).importance.unwrap());
        found.into_iter().map(|w| (w * 1e4).round() / 1e4).collect::<Vec<f64>>()
    };
    assert_eq!(weights(ImportanceCorrection::TokenTruncated { low, high }), [2.0, 3.0, 0.75]);
    assert_eq!(weights(ImportanceCorrection::TokenMasked { low, high }), [2.0, 0.0, 0.0]);
    assert_eq!(weights(ImportanceCorrection::SequenceTruncated { low, high }), [3.0, 3.0, 0.75]);
    assert_eq!(weights(ImportanceCorrection::SequenceMasked { low, high }), [0.0, 0.0, 0.0]);
    // √(2·4) = 2.83
    assert_eq!(weights(ImportanceCorrection::SequenceMeanMasked { low, high }), [2.0, 4.0, 0.0]);
}

#[test]
fn an_exact_divergence_needs_no_reference() {
    let sequences = [vec![Token::fresh(-1.0, 0.0), Token { entropy: 3.0, ..Token::fresh(-1.0, 0.0) }]];
    let mut tokens = packed(&sequences);
    tokens.reference_log_probs = None;
    let penalty = KlPenalty { estimator: KlEstimator::Exact, ..KlPenalty::k3(Positive::new(0.5)) };
    let objective = PolicyObjective { kl: Some(penalty), ..PolicyObjective::dapo() };
    assert!(objective.needs_divergences() && !objective.needs_reference());
    let share = objective.share(&tokens, totals(&sequences));
    assert!((share.loss.into_scalar::<f64>() - 0.5 * (0.5 + 1.5) / 2.0).abs() < 1e-6);
}

#[test]
fn presets_are_consistent_and_come_back_from_a_file() {
    for (preset, objective) in presets().into_iter().zip(objectives()) {
        assert_eq!(objective.check(), Ok(()), "{preset:?}");
        let text = toml::to_string(&objective).unwrap();
        assert_eq!(toml::from_str::<PolicyObjective>(&text).unwrap(), objective, "{text}");
        let text = toml::to_string(&preset.advantages()).unwrap();
        assert_eq!(toml::from_str::<crate::loss::AdvantageEstimator>(&text).unwrap(), preset.advantages());
    }
    assert_eq!(toml::from_str::<PolicyObjective>("").unwrap(), PolicyObjective::dapo());
    assert!(toml::from_str::<PolicyObjective>("beta = 0.1").is_err());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let level = |ratio, objective: PolicyObjective| PolicyObjective { ratio, ..objective };
    let message = |objective: PolicyObjective| objective.check().unwrap_err().to_string();
    let ignored = level(RatioLevel::Sequence, PolicyObjective::vespo());
    assert!(message(ignored).contains("leave `ratio` out"));
    let tokens = PolicyObjective { aggregation: Aggregation::TokenMean {}, ..PolicyObjective::gmpo() };
    assert!(message(tokens).contains("sequence_mean"));
    let tokens = PolicyObjective { aggregation: Aggregation::TokenMean {}, ..PolicyObjective::rloo() };
    assert!(message(tokens).contains("sequence_sum"));
    let ceiling = Some(Positive::new(1.1));
    let surrogate = Surrogate::Clipped { low: NonNegative::new(0.2), high: NonNegative::new(0.2), ceiling };
    assert!(message(PolicyObjective { surrogate, ..PolicyObjective::dapo() }).contains("1.1"));
    let empty = ImportanceCorrection::TokenMasked { low: NonNegative::new(2.0), high: Positive::new(1.0) };
    assert!(
        message(PolicyObjective { importance: Some(empty), ..PolicyObjective::dapo() }).contains("`low` = 2")
    );
    let limited = KlPenalty {
        estimator: KlEstimator::Exact,
        difference_limit: Some(Positive::new(20.0)),
        ..KlPenalty::k3(Positive::new(0.1))
    };
    assert!(
        message(PolicyObjective { kl: Some(limited), ..PolicyObjective::dapo() })
            .contains("difference_limit")
    );
    let adaptive = AdaptiveEntropy { minimum: NonNegative::new(2.0), ..AdaptiveEntropy::default() };
    let bonus = EntropyBonus { coefficient: NonNegative::new(0.0), adaptive: Some(adaptive) };
    assert!(message(PolicyObjective { entropy: Some(bonus), ..PolicyObjective::dapo() }).contains("minimum"));
}

#[test]
fn a_gamma_weight_is_one_at_one() {
    let shape = GammaShape { power: Positive::new(2.0), decay: Positive::new(3.0) };
    let device = Device::flex();
    let zeros = vector([0.0, 0.0], &device);
    let weights = crate::loss::vespo_weights(zeros.clone(), None, zeros, [shape; 2], &[2]);
    assert_eq!(host(weights), [1.0; 2]);
}

prop_compose! {
    fn token()(
        policy in -6.0..-0.01_f32,
        drift in -1.0..1.0_f32,
        mismatch in -0.5..0.5_f32,
        reference in -6.0..-0.01_f32,
        advantage in -3.0..3.0_f32,
        entropy in 0.0..4.0_f32,
        is_kept in prop::bool::weighted(0.8),
    ) -> Token {
        let old = policy + drift;
        Token { policy, old, sampling: old + mismatch, reference, advantage, entropy, is_kept }
    }
}

fn batch() -> impl Strategy<Value = Vec<Vec<Token>>> {
    prop::collection::vec(prop::collection::vec(token(), 1..6), 2..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shares_of_micro_batches_add_up_in_any_order(sequences in batch(), cut in 0.0..1.0_f64) {
        let cut = (1 + (cut * (sequences.len() - 1) as f64) as usize).min(sequences.len() - 1);
        let (first, second) = sequences.split_at(cut);
        for objective in objectives() {
            let (whole, gradient) = loss_and_gradient(&objective, &packed(&sequences), totals(&sequences));
            let (a, of_first) = loss_and_gradient(&objective, &packed(first), totals(&sequences));
            let (b, of_second) = loss_and_gradient(&objective, &packed(second), totals(&sequences));
            prop_assert!((whole - (a + b)).abs() < 1e-4 * (1.0 + whole.abs()), "{:?}: {} {}", objective, whole, a + b);
            let largest = gradient.iter().fold(1e-6_f64, |m, g| m.max(g.abs()));
            for (g, part) in gradient.iter().zip(of_first.iter().chain(&of_second)) {
                prop_assert!((g - part).abs() < 1e-5 * largest);
            }
            let swapped: Vec<Vec<Token>> = second.iter().chain(first).cloned().collect();
            let (other, _) = loss_and_gradient(&objective, &packed(&swapped), totals(&sequences));
            prop_assert!((whole - other).abs() < 1e-4 * (1.0 + whole.abs()));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences(sequences in batch()) {
        // Of what has a gradient through everything that its value is made of, away from corners.
        let smooth = [
            PolicyObjective { surrogate: Surrogate::Ratio {}, ratio: RatioLevel::Sequence, ..PolicyObjective::default() },
            PolicyObjective::sapo(),
            PolicyObjective { surrogate: Surrogate::Dro { beta: Positive::new(0.5) }, ..PolicyObjective::default() },
            PolicyObjective {
                kl: Some(KlPenalty { is_bias_corrected: true, ..KlPenalty::k3(Positive::new(0.3)) }),
                surrogate: Surrogate::Ratio {},
                ..PolicyObjective::default()
            },
        ];
        for objective in smooth {
            let (_, gradient) = loss_and_gradient(&objective, &packed(&sequences), totals(&sequences));
            let step = 1.0 / 128.0;
            let moved = |by: f32| {
                let mut moved = sequences.clone();
                moved[0][0].policy += by;
                loss_and_gradient(&objective, &packed(&moved), totals(&sequences)).0
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let scale = 1.0 + gradient[0].abs().max(moved(0.0).abs());
            prop_assert!((gradient[0] - difference).abs() < 5e-3 * scale, "{:?}: {} {}", objective, gradient[0], difference);
        }
    }
}
