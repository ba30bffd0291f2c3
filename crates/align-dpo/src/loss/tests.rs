//! What holds of the losses whatever the numbers. How they compare with other people's programs is in `tests/golden`.

use align_model::{
    logprob::TokenLogProbs,
    number::{NonNegative, Positive, ProperFraction, UnitInterval},
};
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;

use super::*;

const REVERSE: Divergence = Divergence::ReverseKl {};

fn vector(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex().autodiff())
}

fn read(x: Tensor<1>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn beta(value: f64) -> Positive {
    Positive::new(value)
}

fn smoothing(value: f64) -> ProperFraction {
    ProperFraction::new(value)
}

/// Terms of margins and their gradients.
fn of_margins(loss: impl Fn(Tensor<1>) -> Tensor<1>, margins: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let margins = vector(margins).require_grad();
    let terms = loss(margins.clone());
    let gradients = terms.clone().sum().backward();
    (read(terms), read(margins.grad(&gradients).unwrap()))
}

/// A pair: both log-probabilities under the policy, then both under the reference, then both lengths.
type Pair = (f32, f32, f32, f32, u8, u8);

fn batch(pairs: &[Pair]) -> PairLogProbs {
    let column = |of: fn(&Pair) -> f32| vector(&pairs.iter().map(of).collect::<Vec<_>>());
    PairLogProbs {
        policy_chosen: column(|p| p.0),
        policy_rejected: column(|p| p.1),
        reference_chosen: column(|p| p.2),
        reference_rejected: column(|p| p.3),
        chosen_tokens: column(|p| f32::from(p.4)),
        rejected_tokens: column(|p| f32::from(p.5)),
        unweighted_chosen: None,
    }
}

fn reference_free(pairs: &[Pair]) -> ReferenceFreeLogProbs {
    let PairLogProbs { policy_chosen, policy_rejected, chosen_tokens, rejected_tokens, .. } = batch(pairs);
    ReferenceFreeLogProbs { chosen: policy_chosen, rejected: policy_rejected, chosen_tokens, rejected_tokens }
}

fn log_prob() -> std::ops::Range<f32> {
    -60.0..-0.5
}

fn pair() -> impl Strategy<Value = Pair> {
    (log_prob(), log_prob(), log_prob(), log_prob(), 1u8..30, 1u8..30)
}

fn losses() -> Vec<PairLoss> {
    let label_smoothing = smoothing(0.1);
    vec![
        PairLoss::Sigmoid { label_smoothing },
        PairLoss::SigmoidNorm { label_smoothing },
        PairLoss::Hinge { scale: SequenceScale::Sum },
        PairLoss::Ipo { scale: SequenceScale::Mean },
        PairLoss::ExoPair { label_smoothing: InnerFraction::try_from(0.01).unwrap() },
        PairLoss::NcaPair {},
        PairLoss::Robust { label_smoothing: FlipRate::try_from(0.2).unwrap() },
        PairLoss::BcoPair {},
        PairLoss::SppoHard {},
        PairLoss::Aot { label_smoothing },
        PairLoss::AotUnpaired { label_smoothing },
        PairLoss::ApoZero {},
        PairLoss::ApoDown {},
        PairLoss::Discopop { temperature: Positive::new(0.05) },
        PairLoss::Dpop { lambda: NonNegative::new(5.0) },
        PairLoss::RDpo { alpha: 0.1 },
        PairLoss::Sft { mean: LikelihoodMean::Tokens },
        PairLoss::Sft { mean: LikelihoodMean::Sequences },
    ]
}

fn reference_free_losses() -> Vec<ReferenceFreeLoss> {
    let label_smoothing = smoothing(0.1);
    vec![
        ReferenceFreeLoss::Sigmoid { label_smoothing },
        ReferenceFreeLoss::Hinge {},
        ReferenceFreeLoss::Ipo { scale: SequenceScale::Mean },
        ReferenceFreeLoss::Simpo { margin: SimpoMargin::Gamma(NonNegative::new(0.5)), label_smoothing },
        ReferenceFreeLoss::Orpo {},
        ReferenceFreeLoss::Slic { delta: Positive::new(1.0) },
    ]
}

fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{got:?} for {expected:?}");
    }
}

// Each number is the formula of the documentation, evaluated in Python with f64 at β = 0.2, x_c = −1, x_r = 1.5.
#[test]
fn what_no_library_has_is_its_formula() {
    let pairs = batch(&[(-4.0, -3.5, -3.0, -5.0, 6, 4)]);
    let term = |loss: PairLoss| read(loss.per_pair(&pairs, beta(0.2), REVERSE));
    assert_close(&term(PairLoss::Dpop { lambda: NonNegative::new(5.0) }), &[1.701_413_277_982_753], 1e-6);
    assert_close(&term(PairLoss::RDpo { alpha: 0.1 }), &[0.854_355_244_468_527_2], 1e-6);
    let conservative = PairLoss::Sigmoid { label_smoothing: smoothing(0.1) };
    assert_close(&term(conservative), &[0.924_076_984_180_106_7], 1e-6);
    let (chosen, rejected) = pairs.log_ratios();
    let soft = sppo_soft_loss(chosen, rejected, vector(&[0.8]), vector(&[0.3]), beta(0.2));
    assert_close(&read(soft), &[12.5], 1e-6);
    let free = reference_free(&[(-4.0, -3.5, -3.0, -5.0, 6, 4)]);
    let slic = ReferenceFreeLoss::Slic { delta: Positive::new(1.5) };
    assert_close(&read(slic.per_pair(&free, beta(0.2), ImplicitReward::default())), &[2.0], 1e-6);
}

#[test]
fn ipo_rests_at_its_margin() {
    for value in [0.1, 0.5, 2.0] {
        let (terms, gradients) =
            of_margins(|m| ipo_loss(m, beta(value)), &[(0.5 / value) as f32, (0.5 / value) as f32 + 1.0]);
        assert_close(&terms, &[0.0, 1.0], 1e-6);
        assert_close(&gradients, &[0.0, 2.0], 1e-6);
    }
}

#[test]
fn a_policy_that_is_its_reference_has_a_gradient() {
    let none = smoothing(0.0);
    let (terms, gradients) = of_margins(|m| sigmoid_loss(m, beta(0.1), none), &[0.0]);
    assert_close(&terms, &[std::f64::consts::LN_2], 1e-7);
    assert_close(&gradients, &[-0.05], 1e-7);
    let desirable = vector(&[1.0, 0.0]);
    let log_ratios = vector(&[0.0, 0.0]).require_grad();
    let loss = kto_loss(log_ratios.clone(), desirable, vector(&[0.0]), beta(0.1), ClassWeights::default());
    let gradients = loss.sum().backward();
    assert_close(&read(log_ratios.grad(&gradients).unwrap()), &[-0.025, 0.025], 1e-7);
}

#[test]
fn an_almost_certain_pair_keeps_an_exact_gradient() {
    let (_, gradients) = of_margins(|m| sigmoid_loss(m, beta(1.0), smoothing(0.0)), &[20.0, 40.0]);
    for (gradient, margin) in gradients.iter().zip([20.0f64, 40.0]) {
        let expected = -1.0 / (1.0 + margin.exp());
        assert!((gradient / expected - 1.0).abs() < 1e-5, "{gradient} for {expected}");
    }
}

#[test]
fn optimal_transport_of_one_pair_is_dpo() {
    let pairs = batch(&[(-4.0, -3.5, -3.0, -5.0, 6, 4)]);
    let term = |loss: PairLoss| read(loss.per_pair(&pairs, beta(0.3), REVERSE));
    let label_smoothing = smoothing(0.2);
    let dpo = term(PairLoss::Sigmoid { label_smoothing });
    assert_close(&term(PairLoss::Aot { label_smoothing }), &dpo, 1e-6);
    assert_close(&term(PairLoss::AotUnpaired { label_smoothing }), &dpo, 1e-6);
}

#[test]
fn tokens_beyond_the_other_completion_weigh_alpha() {
    let weights = length_desensitized(&[3, 1, 2, 0], &[2, 1, 4, 5], UnitInterval::new(0.25), &Device::flex());
    assert_close(&read(weights), &[1.0, 1.0, 0.25, 1.0, 1.0, 1.0], 0.0);
}

#[test]
fn policy_weights_have_no_gradient() {
    let values = vector(&[-1.0, -2.0, -0.5]).require_grad();
    let log_probs = TokenLogProbs { values: values.clone(), counts: vec![2, 1] };
    let weights = policy_weights(&log_probs, vector(&[-0.5, -0.5, -0.25]));
    assert_close(&read(weights.clone()), &[(-1.0f64).exp(), (-0.25f64).exp()], 1e-6);
    let gradients = (weights.sum() + values.clone().sum()).backward();
    assert_close(&read(values.grad(&gradients).unwrap()), &[1.0, 1.0, 1.0], 1e-7);
}

#[test]
fn configurations_are_read_by_their_names() {
    let read = |text: &str| serde_json::from_str::<PairObjective>(text);
    let mixed = read(
        r#"{"beta": 0.2, "losses": [
            {"loss": {"kind": "sigmoid"}, "weight": 0.8}, {"loss": {"kind": "bco_pair"}, "weight": 0.2},
            {"loss": {"kind": "sft"}}]}"#,
    );
    let mixed = mixed.unwrap();
    assert_eq!(mixed.losses[2], PairLoss::Sft { mean: LikelihoodMean::Tokens }.into());
    assert!(mixed.needs_reference() && !mixed.couples_pairs());
    for loss in losses() {
        let text = serde_json::to_string(&loss).unwrap();
        assert_eq!(serde_json::from_str::<PairLoss>(&text).unwrap(), loss);
    }
    let message = |text: &str| read(text).unwrap_err().to_string();
    assert!(message(r#"{"losses": [{"loss": {"kind": "hinge", "tau": 1}}]}"#).contains("tau"));
    assert!(message(r#"{"losses": [{"loss": {"kind": "dpo"}}]}"#).contains("sigmoid_norm"));
    assert!(message(r#"{"losses": [{"loss": {"kind": "robust", "label_smoothing": 0.5}}]}"#).contains("0.5"));
    assert!(message(r#"{"beta": 0}"#).contains("greater than 0"));
    let margin: SimpoMargin = serde_json::from_str(r#"{"gamma_beta_ratio": 0.3}"#).unwrap();
    assert!((margin.before_beta(beta(2.0)) - 0.3).abs() < 1e-12);
    let gamma = SimpoMargin::Gamma(NonNegative::new(0.6));
    assert!((gamma.before_beta(beta(2.0)) - 0.3).abs() < 1e-12);
}

#[test]
#[should_panic(expected = "couples pairs")]
fn coupled_pairs_take_no_weights() {
    let loss = PairLoss::Aot { label_smoothing: smoothing(0.0) };
    let objective = PairObjective { losses: vec![loss.into()], ..PairObjective::default() };
    let totals = StepTotals { pairs: 1, likelihood_tokens: 1 };
    let _ = objective.share_of_step(&batch(&[(-1.0, -1.0, -1.0, -1.0, 1, 1)]), Some(&vector(&[1.0])), totals);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A constant that both completions gain under the policy, or under the reference, changes no loss of margins.
    #[test]
    fn margins_see_no_shift(pairs in prop::collection::vec(pair(), 1..6), shift in -20.0f32..20.0) {
        let shifted: Vec<Pair> =
            pairs.iter().map(|p| (p.0 + shift, p.1 + shift, p.2 - shift, p.3 - shift, p.4, p.5)).collect();
        for loss in losses() {
            let depends_on_margins_alone = loss.takes_divergence()
                && loss.needs_reference()
                && !matches!(loss, PairLoss::SigmoidNorm { .. } | PairLoss::Ipo { .. });
            if depends_on_margins_alone {
                let terms = |pairs: &[Pair]| read(loss.per_pair(&batch(pairs), beta(0.1), REVERSE));
                assert_close(&terms(&shifted), &terms(&pairs), 1e-4);
            }
        }
    }

    /// A constant that a completion gains under policy and reference alike changes no loss of log-ratios.
    #[test]
    fn log_ratios_see_no_shift(pairs in prop::collection::vec(pair(), 1..6), shift in -20.0f32..20.0) {
        let shifted: Vec<Pair> =
            pairs.iter().map(|p| (p.0 + shift, p.1 - shift, p.2 + shift, p.3 - shift, p.4, p.5)).collect();
        for loss in losses().into_iter().filter(|l| l.needs_reference() && !matches!(l, PairLoss::Aot { .. })) {
            let terms = |pairs: &[Pair]| read(loss.per_pair(&batch(pairs), beta(0.1), REVERSE));
            assert_close(&terms(&shifted), &terms(&pairs), 1e-4);
        }
    }

    /// Swapping a pair turns the margin round: DPO's terms then differ by β·m, and smoothing by ε undoes one by 1 − ε.
    #[test]
    fn a_swapped_pair_is_the_opposite_label(margin in -30.0f32..30.0, epsilon in 0.01f64..0.99) {
        let dpo = |m: f32, e: f64| of_margins(|m| sigmoid_loss(m, beta(0.5), smoothing(e)), &[m]).0;
        assert_close(&[dpo(-margin, 0.0)[0] - dpo(margin, 0.0)[0]], &[f64::from(margin) * 0.5], 1e-5);
        assert_close(&dpo(margin, epsilon), &dpo(-margin, 1.0 - epsilon), 1e-5);
    }

    /// Robust DPO on labels flipped at its rate is, in expectation, DPO on clean ones.
    #[test]
    fn robust_loss_is_unbiased(margin in -30.0f32..30.0, rate in 0.0f64..0.45) {
        let flip_rate = FlipRate::try_from(rate).unwrap();
        let robust = |m: f32| of_margins(|m| robust_loss(m, beta(0.3), flip_rate), &[m]).0[0];
        let clean = of_margins(|m| sigmoid_loss(m, beta(0.3), smoothing(0.0)), &[margin]).0;
        assert_close(&[(1.0 - rate) * robust(margin) + rate * robust(-margin)], &clean, 2e-5);
    }

    /// Losses that are convex in the margin are; those that only fall do.
    #[test]
    fn curves_bend_the_right_way(a in -40.0f32..40.0, b in -40.0f32..40.0) {
        let none = smoothing(0.0);
        let curves: [fn(Tensor<1>) -> Tensor<1>; 4] = [
            |m| sigmoid_loss(m, Positive::new(0.2), ProperFraction::new(0.0)),
            |m| sigmoid_loss(m, Positive::new(0.2), ProperFraction::new(0.3)),
            |m| hinge_loss(m, Positive::new(0.2)),
            |m| ipo_loss(m, Positive::new(0.2)),
        ];
        for curve in curves {
            let (terms, _) = of_margins(curve, &[a, f32::midpoint(a, b), b]);
            let chord = f64::midpoint(terms[0], terms[2]);
            prop_assert!(terms[1] <= chord * (1.0 + 1e-5) + 1e-4, "{terms:?}");
        }
        let (terms, gradients) = of_margins(|m| sigmoid_loss(m, beta(0.2), none), &[a.min(b), a.max(b)]);
        prop_assert!(terms[0] >= terms[1] && gradients.iter().all(|&g| g <= 0.0));
    }

    /// A point of reference of 0 makes KTO the anchored loss, and a pair's anchored loss is that of its two completions.
    /// Weights multiply their class and nothing else.
    #[test]
    fn unpaired_losses_agree(good in -40.0f32..40.0, bad in -40.0f32..40.0, weight in 0.0f64..3.0) {
        let weights = ClassWeights { desirable: NonNegative::new(weight), ..ClassWeights::default() };
        let ratios = || vector(&[good, bad]);
        let desirable = || vector(&[1.0, 0.0]);
        let anchored = read(apo_zero_unpaired_loss(ratios(), desirable(), beta(0.2), weights));
        let plain = read(apo_zero_unpaired_loss(ratios(), desirable(), beta(0.2), ClassWeights::default()));
        assert_close(&anchored, &[plain[0] * weight, plain[1]], 1e-6);
        let kto = read(kto_loss(ratios(), desirable(), vector(&[0.0]), beta(0.2), weights));
        assert_close(&kto, &anchored, 1e-6);
        let pair = read(apo_zero_loss(vector(&[good]), vector(&[bad]), beta(0.2)));
        assert_close(&pair, &[plain[0] + plain[1]], 1e-6);
        let shifted = read(bco_loss(ratios(), desirable(), vector(&[0.0]), beta(0.2)));
        let unshifted = read(bco_pair_loss(vector(&[good]), vector(&[bad]), beta(0.2)));
        assert_close(&[shifted[0] + shifted[1]], &unshifted, 1e-6);
    }

    /// A step's loss is the same however the step is cut into batches, where the loss can be cut at all.
    #[test]
    fn shares_add_up_to_the_step(pairs in prop::collection::vec(pair(), 2..8), cut in 1usize..7) {
        let cut = cut.min(pairs.len() - 1);
        let losses = losses().into_iter().filter(|l| !l.couples_pairs()).map(WeightedLoss::from).collect();
        let objective = PairObjective { beta: beta(0.1), divergence: REVERSE, losses };
        let likelihood_tokens = pairs.iter().map(|p| usize::from(p.4)).sum();
        let totals = StepTotals { pairs: pairs.len(), likelihood_tokens };
        let share = |pairs: &[Pair]| read(objective.share_of_step(&batch(pairs), None, totals))[0];
        assert_close(&[share(&pairs[..cut]) + share(&pairs[cut..])], &[share(&pairs)], 1e-4);
        for loss in reference_free_losses() {
            for mean in [LikelihoodMean::Tokens, LikelihoodMean::Sequences] {
                let likelihood = Likelihood { weight: NonNegative::new(0.7), of: LikelihoodOf::Completion, mean };
                let reward = ImplicitReward::default();
                let objective =
                    ReferenceFreeObjective { beta: beta(0.5), loss, reward, likelihood: Some(likelihood) };
                let share = |part: &[Pair]| {
                    let free = reference_free(part);
                    let texts =
                        Likelihoods { log_probs: free.chosen.clone(), tokens: free.chosen_tokens.clone() };
                    read(objective.share_of_step(&free, Some(&texts), totals))[0]
                };
                assert_close(&[share(&pairs[..cut]) + share(&pairs[cut..])], &[share(&pairs)], 1e-4);
            }
        }
    }

    /// The terms of the objective are those of its losses: over one batch, a share is the weighted mean.
    #[test]
    fn a_single_batch_is_the_mean(pairs in prop::collection::vec(pair(), 1..6)) {
        let likelihood_tokens = pairs.iter().map(|p| usize::from(p.4)).sum();
        let totals = StepTotals { pairs: pairs.len(), likelihood_tokens };
        for loss in losses() {
            let weighted = WeightedLoss { loss, weight: NonNegative::new(0.5) };
            let objective = PairObjective { beta: beta(0.1), divergence: REVERSE, losses: vec![weighted] };
            let terms = read(loss.per_pair(&batch(&pairs), beta(0.1), REVERSE));
            let mean = terms.iter().sum::<f64>() / pairs.len() as f64;
            assert_close(&read(objective.share_of_step(&batch(&pairs), None, totals)), &[mean * 0.5], 1e-5);
        }
    }

    /// The order of a batch does not matter to optimal transport.
    #[test]
    fn transport_sees_no_order(pairs in prop::collection::vec(pair(), 1..6)) {
        let reversed: Vec<Pair> = pairs.iter().rev().copied().collect();
        for loss in losses().into_iter().filter(|loss| loss.couples_pairs()) {
            let terms = |pairs: &[Pair]| read(loss.per_pair(&batch(pairs), beta(0.1), REVERSE));
            assert_close(&terms(&pairs), &terms(&reversed), 1e-6);
        }
    }

    /// No term and no gradient is infinite or undefined, however far the policy has gone.
    #[test]
    fn nothing_overflows(policy in prop::array::uniform2(-1e4f32..0.0), reference in prop::array::uniform2(-1e4f32..0.0)) {
        let pair = (policy[0], policy[1], reference[0], reference[1], 7, 9);
        let finite = |terms: Tensor<1>, leaves: [Tensor<1>; 2], what: &str| {
            let gradients = terms.clone().sum().backward();
            let of_leaves = leaves.map(|leaf| read(leaf.grad(&gradients).unwrap_or_else(|| leaf.zeros_like())));
            let all = [read(terms), of_leaves.concat()].concat();
            assert!(all.iter().all(|x| x.is_finite()), "{what}: {all:?}");
        };
        let divergences =
            [REVERSE, Divergence::ForwardKl {}, Divergence::JensenShannon {}, Divergence::Alpha { alpha: 0.5 }];
        for (loss, divergence) in losses().into_iter().flat_map(|l| divergences.map(|d| (l, d))) {
            let squares_an_exponential = matches!(loss, PairLoss::Ipo { .. } | PairLoss::Discopop { .. });
            if divergence == REVERSE || (loss.takes_divergence() && !squares_an_exponential) {
                let mut batch = batch(&[pair]);
                batch.policy_chosen = batch.policy_chosen.require_grad();
                batch.policy_rejected = batch.policy_rejected.require_grad();
                let leaves = [batch.policy_chosen.clone(), batch.policy_rejected.clone()];
                finite(loss.per_pair(&batch, beta(0.1), divergence), leaves, &format!("{loss:?} {divergence:?}"));
            }
        }
        let rewards = [ImplicitReward::LogProbability {}, ImplicitReward::Alpha { alpha: 0.25 }];
        for (loss, reward) in reference_free_losses().into_iter().flat_map(|l| rewards.map(|r| (l, r))) {
            if !(matches!(loss, ReferenceFreeLoss::Ipo { .. }) && reward != ImplicitReward::default()) {
                let mut batch = reference_free(&[pair]);
                batch.chosen = batch.chosen.require_grad();
                batch.rejected = batch.rejected.require_grad();
                let leaves = [batch.chosen.clone(), batch.rejected.clone()];
                finite(loss.per_pair(&batch, beta(0.1), reward), leaves, &format!("{loss:?} {reward:?}"));
            }
        }
        let ratios = vector(&[policy[0] - reference[0], policy[1] - reference[1]]).require_grad();
        for loss in [UnpairedLoss::default(), UnpairedLoss::Bco {}] {
            let examples = UnpairedLogProbs {
                policy: ratios.clone(),
                reference: ratios.zeros_like().detach(),
                desirable: vector(&[1.0, 0.0]),
            };
            let terms = loss.per_example(&examples, beta(0.1), vector(&[0.3]));
            finite(terms, [ratios.clone(), ratios.clone()], &format!("{loss:?}"));
        }
    }
}
