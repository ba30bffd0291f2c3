//! A cost stays below its limit, at a price that the run finds out.

use align_model::{
    checkpoint::{Resumable, State},
    number::Positive,
    train::Step,
};
use align_reward::{
    function::{BoxedReward, each_fn},
    rollout::Rollout,
    score::Score,
};
use align_rl::{Constraint, ConstraintConfig, Preset, Rewards};

use crate::world::{config, evenness, flat, prompts, restored, trainer};

fn length(rollout: &Rollout) -> f64 {
    rollout.tokens.as_ref().unwrap().len() as f64 / 12.0
}

/// Pays for length; what is long also costs.
fn constrained(limit: f64) -> Rewards {
    let settings = ConstraintConfig {
        limit,
        initial: Positive::new(0.05),
        learning_rate: Positive::new(5.0),
        maximum: Positive::new(20.0),
        window: 1.try_into().unwrap(),
    };
    let reward = each_fn("long", length);
    Rewards::one(reward).under(vec![Constraint::new(each_fn("effort", length), settings)])
}

#[test]
fn a_price_rises_until_the_cost_is_below_its_limit() {
    let mut config = config(Preset::Dapo);
    config.rollout.samples = 8.try_into().unwrap();
    config.alarms = Vec::new();
    let run = |rewards: Rewards| {
        let mut trainer = trainer(&config, rewards);
        let reports: Vec<_> = (0..60).map(|_| trainer.step(&prompts(4)).unwrap()).collect();
        let late = reports[50..].iter().map(|report| report.get("rewards/effort/mean").unwrap());
        (late.sum::<f64>() / 10.0, reports[59].get("price/effort").unwrap())
    };
    let (free, low) = run(constrained(10.0));
    let (dear, high) = run(constrained(0.4));
    assert!(free > 0.8, "a cost that is never too high is no hindrance: {free}");
    assert!(low < 0.05, "its price only falls: {low}");
    assert!(dear < 0.6 && high > low, "{dear} at a price of {high}");
}

#[test]
fn what_a_completion_is_worth_has_the_price_in_it() {
    let mut rewards = constrained(0.4);
    let rollouts = [Rollout::new("p", "c").with_tokens(vec![1; 12])];
    let scores = rewards.score(&rollouts).unwrap();
    assert!((scores.totals[0].value().unwrap() - (1.0 - 0.05) / 1.05).abs() < 1e-12);
    let sum: f64 = scores.parts.iter().map(|part| part.weight * part.scores[0].value().unwrap()).sum();
    assert!(
        (sum - scores.totals[0].value().unwrap()).abs() < 1e-12,
        "estimators that take the parts see the same"
    );
}

#[test]
fn what_has_no_cost_has_no_reward() {
    let silent: BoxedReward = Box::new(each_fn("effort", |_| Score::unscored("nobody knows")));
    let settings = toml::from_str("limit = 0.5").unwrap();
    let mut rewards = Rewards::one(each_fn("long", length)).under(vec![Constraint::new(silent, settings)]);
    let scores = rewards.score(&[Rollout::new("p", "c").with_tokens(vec![1; 12])]).unwrap();
    assert_eq!(scores.totals, [Score::unscored("effort: nobody knows")]);
}

#[test]
fn the_price_is_saved() {
    let config = config(Preset::Dapo);
    let mut whole = trainer(&config, constrained(0.3));
    let mut reports: Vec<_> = (0..4).map(|_| whole.step(&prompts(4)).unwrap()).collect();
    let mut first = trainer(&config, constrained(0.3));
    (0..2).for_each(|_| drop(first.step(&prompts(4)).unwrap()));
    let mut second = restored(&first, trainer(&config, constrained(0.3)));
    for expected in reports.drain(2..) {
        assert_eq!(second.step(&prompts(4)).unwrap(), expected);
    }
    assert_eq!(flat(second.model(), None), flat(whole.model(), None));
    let mut state = State::new();
    first.save(&mut state).unwrap();
    let mut other = trainer(&config, evenness());
    let error = other.restore(&mut state).unwrap_err();
    assert!(error.to_string().contains("constraints"), "{error}");
}
