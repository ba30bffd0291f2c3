//! Pairs with a third completion.

use align_dpo::{
    DpoTrainer, Objective, PreferenceError, Reference,
    loss::{ReferenceFreeLoss, ReferenceFreeObjective, SimpoMargin},
};
use align_model::{
    number::{NonNegative, Positive, ProperFraction},
    preference::PreferenceExample,
    train::Step,
};

use crate::world::{config, load, pairs, under_way};

fn losses() -> [ReferenceFreeLoss; 2] {
    let none = ProperFraction::new(0.0);
    [
        ReferenceFreeLoss::Sigmoid { label_smoothing: none },
        ReferenceFreeLoss::Simpo { margin: SimpoMargin::Gamma(NonNegative::new(0.5)), label_smoothing: none },
    ]
}

fn trainer(objective: ReferenceFreeObjective) -> DpoTrainer<align_model::decoder::Decoder> {
    let config = config(Objective::ReferenceFree(objective), 3);
    DpoTrainer::new(load(), Reference::Nothing, &config, 4).unwrap()
}

#[test]
fn the_likelihood_of_the_third_completion_is_learnt_beside_the_pair() {
    for loss in losses() {
        let beta = Positive::new(0.1);
        let tpo = ReferenceFreeObjective::tpo(beta, loss, NonNegative::new(0.7));
        let alone = ReferenceFreeObjective { likelihood: None, ..tpo };
        let of_tpo = trainer(tpo).gradients(&pairs(4)).unwrap().1;
        let of_pairs = trainer(alone).gradients(&pairs(4)).unwrap().1;

        // Gold completions in the place of the chosen ones: their log-probabilities, summed.
        let sums = ReferenceFreeObjective { loss: losses()[0], ..alone };
        let tokens: usize = pairs(4).iter().map(|pair| pair.gold.as_ref().unwrap().len()).sum();
        let as_chosen: Vec<PreferenceExample> = pairs(4)
            .into_iter()
            .map(|pair| PreferenceExample { chosen: pair.gold.clone().unwrap(), ..pair })
            .collect();
        let gold = trainer(sums).gradients(&as_chosen).unwrap().1.get("logps/chosen").unwrap();
        let nll = -gold * 4.0 / tokens as f64;

        assert!((of_tpo.get("nll_loss").unwrap() - nll).abs() < 1e-5 * nll);
        let expected = of_pairs.loss() + 0.7 * nll;
        assert!((of_tpo.loss() - expected).abs() < 1e-5 * expected, "{} {expected}", of_tpo.loss());
        for name in ["rewards/chosen", "rewards/margins", "logps/rejected", "mean_token_accuracy"] {
            let (a, b) = (of_tpo.get(name).unwrap(), of_pairs.get(name).unwrap());
            assert!((a - b).abs() < 1e-5 * b.abs() + 1e-6, "{name}: {a} {b}");
        }
    }
}

#[test]
fn a_step_counts_all_three_sequences() {
    let tpo = ReferenceFreeObjective::tpo(Positive::new(0.1), losses()[0], NonNegative::new(1.0));
    let mut trainer = trainer(tpo);
    let report = trainer.step(pairs(3).as_slice()).unwrap();
    let tokens = |pair: &PreferenceExample| {
        let completions = [&pair.chosen, &pair.rejected, pair.gold.as_ref().unwrap()];
        completions.map(|one| pair.prompt.len() + one.len()).iter().sum::<usize>()
    };
    assert_eq!(report.get("num_tokens"), Some(pairs(3).iter().map(tokens).sum::<usize>() as f64));
}

#[test]
fn a_model_learns_to_imitate() {
    let tpo = ReferenceFreeObjective::tpo(Positive::new(0.1), losses()[0], NonNegative::new(1.0));
    let mut trainer = under_way(&config(Objective::ReferenceFree(tpo), 4));
    let nll: Vec<f64> =
        (0..5).map(|_| trainer.step(pairs(4).as_slice()).unwrap().get("nll_loss").unwrap()).collect();
    assert!(nll.is_sorted_by(|a, b| a > b), "{nll:?}");
}

#[test]
fn a_pair_without_a_third_completion_is_refused_with_its_place() {
    let tpo = ReferenceFreeObjective::tpo(Positive::new(0.1), losses()[0], NonNegative::new(1.0));
    let mut trainer = trainer(tpo);
    let mut batch = pairs(3);
    batch[2].gold = None;
    assert_eq!(trainer.step(batch.as_slice()), Err(PreferenceError::NoGold { index: 2 }));
    batch[2].gold = Some(Vec::new());
    assert_eq!(trainer.step(batch.as_slice()), Err(PreferenceError::EmptyResponse { index: 2 }));
}
