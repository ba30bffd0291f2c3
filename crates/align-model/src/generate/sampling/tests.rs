#![allow(clippy::float_cmp)] // compared only where nothing rounds

use proptest::prelude::*;
use rand_chacha::rand_core::SeedableRng;

use super::*;

fn sampled(sampling: Sampling) -> SamplingConfig {
    SamplingConfig { decoding: Decoding::Sample(sampling), ..SamplingConfig::default() }
}

fn greedy() -> SamplingConfig {
    SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() }
}

fn tokens(config: &SamplingConfig, logits: &[f32], history: &[u32]) -> Vec<u32> {
    config.distribution(logits, history).unwrap().kept().map(|kept| kept.token).collect()
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
    weights.iter().map(|w| w / weights.iter().sum::<f64>()).collect()
}

#[test]
fn greedy_takes_the_lowest_id_of_the_largest() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let choice = greedy().choose(&[1.0, 3.0, 3.0, -1.0], &[], &mut rng).unwrap();
    assert_eq!(choice.token, 1);
    assert!((f64::from(choice.log_probability) - softmax(&[1.0, 3.0, 3.0, -1.0])[1].ln()).abs() < 1e-6);
    assert_eq!(rng, ChaCha8Rng::seed_from_u64(1), "greedy decoding draws no number");
}

#[test]
fn the_penalty_counts_a_token_once_and_works_with_greedy() {
    let penalised = SamplingConfig { repetition_penalty: Positive::new(2.0), ..greedy() };
    let distribution = penalised.distribution(&[4.0, -1.0, 3.0], &[0, 1, 0, 0, 99]).unwrap();
    assert_eq!(distribution.kept().map(|kept| kept.logit).collect::<Vec<_>>(), [2.0, -2.0, 3.0]);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    assert_eq!(penalised.choose(&[4.0, -1.0, 3.0], &[0, 1, 0, 0, 99], &mut rng).unwrap().token, 2);
}

#[test]
fn a_run_of_tokens_is_not_repeated() {
    let with =
        |size| SamplingConfig { no_repeat_ngram_size: NonZeroUsize::new(size), ..SamplingConfig::default() };
    let logits = [0.0; 5];
    assert_eq!(tokens(&with(2), &logits, &[1, 2, 3, 1]), [0, 1, 3, 4]);
    assert_eq!(tokens(&with(3), &logits, &[1, 2, 3, 1]), [0, 1, 2, 3, 4]);
    assert_eq!(tokens(&with(3), &logits, &[1, 2, 3, 1, 2]), [0, 1, 2, 4]);
    assert_eq!(tokens(&with(1), &logits, &[1, 2]), [0, 3, 4]);
    assert_eq!(tokens(&with(9), &logits, &[1, 2]), [0, 1, 2, 3, 4]);
    let all = with(1).distribution(&logits, &[0, 1, 2, 3, 4]);
    assert_eq!(all.unwrap_err(), SamplingError::NothingLeft);
}

#[test]
fn what_is_no_distribution_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for config in [greedy(), SamplingConfig::default()] {
        let refused = |logits: &[f32], rng: &mut ChaCha8Rng| config.choose(logits, &[], rng).unwrap_err();
        assert!(matches!(refused(&[0.0, f32::NAN], &mut rng), SamplingError::NotFinite { token: 1, .. }));
        assert!(matches!(
            refused(&[f32::INFINITY, 0.0], &mut rng),
            SamplingError::NotFinite { token: 0, .. }
        ));
        assert_eq!(refused(&[f32::NEG_INFINITY; 3], &mut rng), SamplingError::NothingLeft);
        assert_eq!(refused(&[], &mut rng), SamplingError::NothingLeft);
    }
}

#[test]
fn a_forbidden_token_is_never_kept() {
    let logits = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 0.0];
    assert_eq!(tokens(&SamplingConfig::default(), &logits, &[]), [1, 3]);
    let top = Sampling { top_k: NonZeroUsize::new(3), ..Sampling::default() };
    assert_eq!(tokens(&sampled(top), &logits, &[]), [1, 3]);
}

#[test]
fn cut_offs_never_remove_the_most_likely() {
    let logits = [1.0, 0.9, 0.8, 0.7];
    let high = Some(ProperFraction::new(0.9));
    assert_eq!(tokens(&sampled(Sampling { epsilon_cutoff: high, ..Sampling::default() }), &logits, &[]), [0]);
    // Probabilities 0.289, 0.261, 0.236, 0.214.
    let low = Some(ProperFraction::new(0.22));
    assert_eq!(
        tokens(&sampled(Sampling { epsilon_cutoff: low, ..Sampling::default() }), &logits, &[]),
        [0, 1, 2]
    );
    // Entropy 1.380: η = min(0.9, 0.949 · 0.2516) = 0.2387.
    assert_eq!(tokens(&sampled(Sampling { eta_cutoff: high, ..Sampling::default() }), &logits, &[]), [0, 1]);
}

#[test]
fn configurations_are_read_by_name() {
    let text =
        r#"{"decoding": {"kind": "sample", "temperature": 0.7, "top_p": 0.9}, "repetition_penalty": 1.1}"#;
    let config: SamplingConfig = serde_json::from_str(text).unwrap();
    let Decoding::Sample(sampling) = &config.decoding else { panic!("not sampling") };
    assert_eq!((sampling.temperature.get(), sampling.top_p), (0.7, Some(PositiveUnit::new(0.9))));
    assert_eq!(
        serde_json::from_str::<SamplingConfig>(r#"{"decoding": {"kind": "greedy"}}"#).unwrap(),
        greedy()
    );
    for wrong in [
        r#"{"decoding": {"kind": "sample", "topp": 0.9}}"#,
        r#"{"decoding": {"kind": "sample", "temperature": 0}}"#,
        r#"{"decoding": {"kind": "sample", "top_k": 0}}"#,
        r#"{"top_p": 0.9}"#,
    ] {
        assert!(serde_json::from_str::<SamplingConfig>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn draws_are_stable() {
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let logits: Vec<f32> = (0..100).map(|i| ((i * 37) % 101) as f32 / 25.0).collect();
    let config = sampled(Sampling { top_k: NonZeroUsize::new(50), ..Sampling::default() });
    let drawn: Vec<u32> = (0..8).map(|_| config.choose(&logits, &[], &mut rng).unwrap().token).collect();
    assert_eq!(drawn, [68, 95, 43, 60, 30, 18, 30, 79]);
}

/// A row of logits, many of them tied, and history.
fn rows() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![(-8.0f32..8.0), (-3i8..3).prop_map(f32::from)];
    prop::collection::vec(logit, 1..400)
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let share = || prop::option::of((0.01f64..=1.0).prop_map(PositiveUnit::new));
    let parts =
        (0.05f64..4.0, prop::option::of(1usize..500), share(), prop::option::of(0.0f64..=1.0), share());
    parts.prop_map(|(temperature, top_k, top_p, min_p, typical_p)| Sampling {
        temperature: Positive::new(temperature),
        top_k: top_k.and_then(NonZeroUsize::new),
        top_p,
        min_p: min_p.map(UnitInterval::new),
        typical_p,
        ..Sampling::default()
    })
}

proptest! {
    #[test]
    fn probabilities_sum_to_one_and_ids_ascend(logits in rows(), sampling in any_sampling(), seed in 0u64..1000) {
        let distribution = sampled(sampling).distribution(&logits, &[]).unwrap();
        let kept: Vec<Kept> = distribution.kept().collect();
        prop_assert!(!kept.is_empty());
        prop_assert!((kept.iter().map(|k| k.probability).sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(kept.windows(2).all(|pair| pair[0].token < pair[1].token));
        let choice = distribution.draw(&mut ChaCha8Rng::seed_from_u64(seed));
        let chosen = kept.iter().find(|k| k.token == choice.token);
        let chosen = chosen.expect("only kept tokens are drawn");
        prop_assert!((f64::from(choice.log_probability) - chosen.probability.ln()).abs() < 1e-5);
    }

    #[test]
    fn filters_that_keep_all_leave_the_softmax(logits in rows()) {
        let all = Sampling {
            top_k: NonZeroUsize::new(logits.len()),
            top_p: Some(PositiveUnit::new(1.0)),
            min_p: Some(UnitInterval::new(0.0)),
            typical_p: Some(PositiveUnit::new(1.0)),
            ..Sampling::default()
        };
        let kept: Vec<Kept> = sampled(all).distribution(&logits, &[]).unwrap().kept().collect();
        prop_assert_eq!(kept.len(), logits.len());
        for (kept, expected) in kept.iter().zip(softmax(&logits)) {
            prop_assert!((kept.probability - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn top_p_agrees_with_a_full_sort(logits in rows(), p in 0.01f64..0.999) {
        let probabilities = softmax(&logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(b.cmp(&a)));
        let mut mass = 0.0;
        let mut expected = Vec::new();
        for token in order {
            // A sum this near to the border may round either way.
            prop_assume!((mass - p).abs() > 1e-9);
            if mass >= p {
                break;
            }
            expected.push(token as u32);
            mass += probabilities[token];
        }
        expected.sort_unstable();
        let top = Sampling { top_p: Some(PositiveUnit::new(p)), ..Sampling::default() };
        prop_assert_eq!(tokens(&sampled(top), &logits, &[]), expected);
    }

    #[test]
    fn top_k_keeps_k_and_ties(logits in rows(), k in 1usize..50) {
        let top = Sampling { top_k: NonZeroUsize::new(k), ..Sampling::default() };
        let kept = tokens(&sampled(top), &logits, &[]);
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let border = sorted[k.min(sorted.len()) - 1];
        prop_assert_eq!(kept.len(), logits.iter().filter(|&&x| x >= border).count());
    }

    #[test]
    fn greedy_is_the_first_of_the_largest(logits in rows()) {
        let (token, value) = largest(&logits).unwrap();
        prop_assert!(logits[..token as usize].iter().all(|&x| x < value));
        prop_assert!(logits.iter().all(|&x| x <= value));
    }
}
