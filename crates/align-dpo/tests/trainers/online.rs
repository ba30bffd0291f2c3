//! Pairs that the policy writes itself.

use std::convert::Infallible;

use align_dpo::{DpoTrainer, Duel, Objective, OnlineError, Reference, online_round};
use align_model::{generate::GenerationConfig, train::Step};
use burn::module::Module;

use crate::world::{config, load};

fn generation(samples: usize, seed: u64) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: 6.try_into().unwrap(),
        samples: samples.try_into().unwrap(),
        seed,
        ..GenerationConfig::default()
    }
}

/// Smaller tokens are better.
#[allow(clippy::unnecessary_wraps, reason = "judges may fail")]
fn judge(duels: &[Duel<'_>]) -> Result<Vec<Option<f64>>, Infallible> {
    let sum = |tokens: &[u32]| tokens.iter().sum::<u32>();
    Ok(duels.iter().map(|duel| Some(f64::from(u8::from(sum(duel.a) < sum(duel.b))))).collect())
}

#[test]
fn a_policy_learns_from_its_own_completions() {
    let prompts = [vec![3, 4, 5], vec![6, 7]];
    let model = load();
    let mut trainer =
        DpoTrainer::new(model.clone(), Reference::Model(model.valid()), &config(Objective::default(), 4), 20)
            .unwrap();
    let round = online_round(trainer.model(), &prompts, &generation(4, 1), None, judge).unwrap();
    assert_eq!(round.examples.len() + round.identical, 4);
    let sum = |tokens: &[u32]| tokens.iter().sum::<u32>();
    assert!(round.examples.iter().all(|pair| sum(&pair.chosen) <= sum(&pair.rejected)));
    let again = online_round(trainer.model(), &prompts, &generation(4, 1), None, judge).unwrap();
    assert_eq!(round, again, "the same seed gives the same round");
    for _ in 0..4 {
        trainer.step(round.examples.as_slice()).unwrap();
    }
    let report = trainer.step(round.examples.as_slice()).unwrap();
    assert!(report.get("rewards/margins").unwrap() > 0.0);
}

#[test]
fn what_a_judge_leaves_open_is_counted() {
    let prompts = [vec![3, 4, 5], vec![6, 7]];
    let model = load();
    let open = |duels: &[Duel<'_>]| {
        let half = |duel: &Duel<'_>| (duel.prompt_index == 0).then_some(0.5);
        Ok::<_, Infallible>(duels.iter().map(half).collect())
    };
    let round = online_round(&model, &prompts, &generation(2, 1), None, open).unwrap();
    assert_eq!((round.examples.len(), round.unjudged + round.ties + round.identical), (0, 2));
    let wrong = |_: &[Duel<'_>]| Ok::<_, Infallible>(vec![Some(7.0); 2]);
    let error = online_round(&model, &prompts, &generation(2, 1), None, wrong).unwrap_err();
    assert!(matches!(error, OnlineError::NotAProbability { duel: 0, .. }), "{error}");
    let few = |_: &[Duel<'_>]| Ok::<_, Infallible>(vec![]);
    let error = online_round(&model, &prompts, &generation(2, 1), None, few).unwrap_err();
    assert!(matches!(error, OnlineError::Judgements { .. }), "{error}");
    let error = online_round(&model, &prompts, &generation(3, 1), None, judge).unwrap_err();
    assert!(matches!(error, OnlineError::OddSamples { samples: 3 }), "{error}");
}
