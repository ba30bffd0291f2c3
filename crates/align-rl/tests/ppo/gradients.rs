//! Gradients do not depend on how a mini-batch is cut, ordered or laid out.

use align_model::number::Positive;
use align_reward::model::RewardModel;
use align_rl::{
    PpoConfig, PpoModels, PpoTrainer,
    critic::Critic,
    loss::ScorePlacement,
    ppo::{RewardShaping, ValueClipping, ValueObjective, ValuedExperience},
};

use super::world::{
    Separate, assert_close, config, critic, decoder, experience, flat, head, rewards, trainer,
};

fn placed(micro_batch_size: usize, placement: ScorePlacement) -> PpoConfig {
    PpoConfig {
        micro_batch_size: micro_batch_size.try_into().unwrap(),
        rewards: RewardShaping { placement, ..RewardShaping::default() },
        ..config()
    }
}

fn both(
    config: &PpoConfig,
    experience: &[ValuedExperience],
) -> (Vec<f32>, Vec<f32>, Vec<(&'static str, f64)>) {
    let trainer = trainer(config);
    let (gradients, report) = trainer.gradients(experience).unwrap();
    (flat(trainer.model(), &gradients.policy), flat(&trainer.critic(), &gradients.critic), report.metrics)
}

#[test]
fn micro_batches_and_their_order_change_nothing() {
    for placement in [ScorePlacement::LastAction, ScorePlacement::AfterLastAction] {
        let all = experience(8, placement == ScorePlacement::AfterLastAction);
        let (policy, critic, metrics) = both(&placed(8, placement), &all);
        let turned: Vec<ValuedExperience> = all.iter().rev().cloned().collect();
        for (micro, all) in [(1, &all), (3, &all), (8, &turned), (2, &turned)] {
            let (other_policy, other_critic, other) = both(&placed(micro, placement), all);
            assert_close("policy", &other_policy, &policy, 2e-5);
            assert_close("critic", &other_critic, &critic, 2e-5);
            for ((name, a), (_, b)) in other.iter().zip(&metrics) {
                assert!((a - b).abs() <= 1e-5 * b.abs() + 1e-6, "{name}: {a} {b}");
            }
        }
    }
}

#[test]
fn shared_prompts_change_nothing() {
    let config = placed(8, ScorePlacement::AfterLastAction);
    let all = experience(8, true);
    let (policy, critic_gradients, _) = both(&config, &all);
    let whole = critic();
    let models = PpoModels {
        policy: Separate { inner: decoder(1) },
        reference: Some(Separate { inner: decoder(1) }),
        critic: RewardModel::new(Separate { inner: whole.backbone }, whole.head).into(),
    };
    let trainer = PpoTrainer::new(models, rewards(), None, &config, 10).unwrap();
    let (gradients, _) = trainer.gradients(&all).unwrap();
    assert_close("policy", &flat(trainer.model(), &gradients.policy), &policy, 2e-5);
    assert_close("critic", &flat(&trainer.critic(), &gradients.critic), &critic_gradients, 2e-5);
}

#[test]
fn a_policy_that_has_not_moved_has_ratios_of_one() {
    let mut all = experience(8, false);
    for one in &mut all {
        one.experience.old_log_probs = None;
    }
    let (_, _, metrics) = both(&placed(3, ScorePlacement::LastAction), &all);
    let metric = |name| metrics.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!(metric("val/ratio"), 1.0);
    assert_eq!(metric("policy/approxkl_avg"), 0.0);
    assert_eq!(metric("policy/clipfrac_avg"), 0.0);
}

/// Both losses of a trainer whose critic is a head on the policy, differentiated through one graph.
#[test]
fn a_shared_critic_changes_the_policy_by_its_loss() {
    let config = PpoConfig {
        value: ValueObjective { clipping: ValueClipping::Off {}, coefficient: Positive::new(0.3) },
        ..placed(3, ScorePlacement::AfterLastAction)
    };
    let all = experience(8, true);
    let (alone, _, _) = both(&config, &all);
    let models = |critic| PpoModels { policy: decoder(1), reference: Some(decoder(1)), critic };
    let shared = PpoTrainer::new(models(Critic::Shared(head())), rewards(), None, &config, 10).unwrap();
    let (found, report) = shared.gradients(&all).unwrap();

    // The value loss alone, by a separate critic whose backbone is the policy.
    let separate = RewardModel::new(decoder(1).without_head(), head());
    let apart = PpoTrainer::new(models(separate.into()), rewards(), None, &config, 10).unwrap();
    let (expected, of_apart) = apart.gradients(&all).unwrap();
    let of_critic = flat(&apart.critic(), &expected.critic);
    let width = flat(&shared.critic().head, &found.critic).len();
    let (of_backbone, of_head) = of_critic.split_at(of_critic.len() - width);
    assert_close("head", &flat(&shared.critic().head, &found.critic), of_head, 2e-5);
    // The policy has its own head's parameters last.
    let sum: Vec<f32> = alone
        .iter()
        .enumerate()
        .map(|(index, gradient)| gradient + of_backbone.get(index).copied().unwrap_or(0.0))
        .collect();
    assert_close("policy", &flat(shared.model(), &found.policy), &sum, 2e-5);
    for name in ["loss/value_avg", "val/explained_variance", "loss/policy_avg"] {
        let (a, b) = (report.get(name).unwrap(), of_apart.get(name).unwrap());
        assert!((a - b).abs() <= 1e-5 * b.abs() + 1e-6, "{name}: {a} {b}");
    }
}

#[test]
fn the_coefficient_scales_the_critic_alone() {
    let scaled = |coefficient: f64| PpoConfig {
        value: ValueObjective { clipping: ValueClipping::Off {}, coefficient: Positive::new(coefficient) },
        ..placed(8, ScorePlacement::LastAction)
    };
    let all = experience(8, false);
    let (policy, critic, _) = both(&scaled(1.0), &all);
    let (same, tenth, _) = both(&scaled(0.1), &all);
    assert_eq!(policy, same);
    let expected: Vec<f32> = critic.iter().map(|gradient| gradient * 0.1).collect();
    assert_close("critic", &tenth, &expected, 1e-5);
}
