//! Sampled tokens come as often as the distribution says.
#![allow(missing_docs, clippy::unwrap_used)]

use std::num::NonZeroUsize;

use align_model::{
    generate::{Decoding, Sampling, SamplingConfig},
    number::{Positive, PositiveUnit, UnitInterval},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use statrs::distribution::{ChiSquared, ContinuousCDF};

const DRAWS: usize = 200_000;

/// Pearson's test of draws against the probabilities: the chance of a deviation at least as large.
fn p_value(sampling: Sampling, logits: &[f32], seed: u64) -> f64 {
    let config = SamplingConfig { decoding: Decoding::Sample(sampling), ..SamplingConfig::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut counts = vec![0usize; logits.len()];
    for _ in 0..DRAWS {
        counts[config.choose(logits, &[], &mut rng).unwrap().token as usize] += 1;
    }
    let kept: Vec<_> = config.distribution(logits, &[]).unwrap().kept().collect();
    let drawn: usize = kept.iter().map(|kept| counts[kept.token as usize]).sum();
    assert_eq!(drawn, DRAWS, "a token was drawn that was not kept");
    let statistic: f64 = kept
        .iter()
        .map(|kept| {
            let expected = kept.probability * DRAWS as f64;
            assert!(expected > 5.0, "too rare for the test");
            (counts[kept.token as usize] as f64 - expected).powi(2) / expected
        })
        .sum();
    ChiSquared::new((kept.len() - 1) as f64).unwrap().sf(statistic)
}

#[test]
fn frequencies_fit_the_distribution() {
    let logits: Vec<f32> = (0..60).map(|i| ((i * 23) % 61) as f32 / 15.0).collect();
    let plain = Sampling::default();
    let settings = [
        plain.clone(),
        Sampling { temperature: Positive::new(1.7), ..plain.clone() },
        Sampling { top_k: NonZeroUsize::new(20), ..plain.clone() },
        Sampling { top_p: Some(PositiveUnit::new(0.8)), ..plain.clone() },
        Sampling { min_p: Some(UnitInterval::new(0.1)), ..plain.clone() },
        Sampling { typical_p: Some(PositiveUnit::new(0.7)), ..plain },
    ];
    for (seed, sampling) in settings.into_iter().enumerate() {
        let p = p_value(sampling.clone(), &logits, seed as u64);
        assert!(p > 1e-4, "{sampling:?}: p = {p}");
    }
}
