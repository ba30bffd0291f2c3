//! A small random policy, critics, prompts and rewards.

use std::path::Path;

use align_model::{
    causal_lm::{CausalLm, HiddenPass, LogitsPass, PassOptions, TokenBatch},
    decoder::Decoder,
    number::Positive,
    pretrained::Architecture,
    train::{Schedule, Span, UpdateConfig},
};
use align_reward::{
    function::each_fn,
    model::{RewardModel, ScoreHead},
    rollout::{FinishReason, Prompt, Rollout},
    score::Score,
};
use align_rl::{
    Experience, PpoConfig, PpoModels, PpoTrainer, Rewards, Trajectory,
    critic::value_head,
    ppo::ValuedExperience,
    rollout::{PromptExample, RolloutConfig},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::json;

pub(crate) const CONTEXT: usize = 32;
pub(crate) const HIDDEN: usize = 16;

pub(crate) fn decoder(seed: u64) -> Decoder {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 24, "hidden_size": HIDDEN,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "initializer_range": 0.2, "tie_word_embeddings": false,
    });
    let architecture = Architecture::from_json(Path::new("config.json"), config).unwrap();
    architecture.random(&mut ChaCha8Rng::seed_from_u64(seed), &Device::flex())
}

pub(crate) fn critic() -> RewardModel<Decoder> {
    RewardModel::new(decoder(5).without_head(), value_head(HIDDEN, &Device::flex()))
}

pub(crate) fn head() -> ScoreHead {
    let kind = align_model::pretrained::ClassifierKind::Token;
    ScoreHead::random(kind, [1, HIDDEN], 0.3, &mut ChaCha8Rng::seed_from_u64(3), &Device::flex())
}

/// The same model without its gift for shared prompts.
#[derive(Module, Debug)]
pub(crate) struct Separate {
    pub(crate) inner: Decoder,
}

impl CausalLm for Separate {
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        assert!(!batch.shares_prompts());
        self.inner.hidden(batch)
    }

    fn training_pass<'a>(&'a self, batch: &'a TokenBatch, options: PassOptions) -> HiddenPass<'a> {
        assert!(!batch.shares_prompts());
        self.inner.training_pass(batch, options)
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.inner.logits(hidden)
    }

    fn training_logits(&self, hidden: Tensor<2>) -> LogitsPass<'_> {
        self.inner.training_logits(hidden)
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.inner.max_positions()
    }

    fn device(&self) -> Device {
        self.inner.device()
    }
}

pub(crate) fn update(learning_rate: f64) -> UpdateConfig {
    UpdateConfig {
        learning_rate: Positive::new(learning_rate),
        schedule: Schedule::Constant { warmup: Span::Steps(0) },
        ..UpdateConfig::default()
    }
}

pub(crate) fn config() -> PpoConfig {
    let rollout = RolloutConfig {
        samples: 1.try_into().unwrap(),
        max_new_tokens: 6.try_into().unwrap(),
        stop: align_model::generate::StopAt { tokens: vec![2], strings: Vec::new() },
        ..RolloutConfig::default()
    };
    PpoConfig {
        rollout,
        batch_size: 8.try_into().unwrap(),
        micro_batch_size: 4.try_into().unwrap(),
        epochs: 2.try_into().unwrap(),
        mini_batches: 2.try_into().unwrap(),
        update: update(1e-2),
        critic_update: update(1e-2),
        ..PpoConfig::default()
    }
}

pub(crate) fn prompts(count: u32) -> Vec<PromptExample> {
    let prompt = |i: u32| PromptExample {
        prompt: Prompt::Text(format!("prompt {i}")),
        tokens: (0..3 + i % 4).map(|t| (t * 5 + i * 7) % 20 + 3).collect(),
        columns: serde_json::Map::new(),
    };
    (0..count).map(prompt).collect()
}

/// The share of tokens that are below 12.
pub(crate) fn low_tokens(rollout: &Rollout) -> f64 {
    let tokens = rollout.tokens.as_ref().unwrap();
    tokens.iter().filter(|&&token| token < 12).count() as f64 / tokens.len() as f64
}

pub(crate) fn rewards() -> Rewards {
    Rewards::one(each_fn("low", low_tokens))
}

pub(crate) fn scored_by(score: impl FnMut(&Rollout) -> Score + Send + 'static) -> Rewards {
    Rewards::one(each_fn("score", score))
}

pub(crate) fn models(config: &PpoConfig) -> PpoModels<Decoder> {
    let reference = config.reference_policy().map(|_| decoder(1));
    PpoModels { policy: decoder(1), reference, critic: critic().into() }
}

pub(crate) fn trainer(config: &PpoConfig) -> PpoTrainer<Decoder> {
    PpoTrainer::new(models(config), rewards(), None, config, 100).unwrap()
}

/// Made-up experience, two trajectories a prompt, some of them cut short and with tokens that are no actions.
pub(crate) fn experience(count: u32, has_end: bool) -> Vec<ValuedExperience> {
    let one = |i: u32| {
        let number = |t: u32, k: u32| ((t * 13 + i * 29 + k * 17) % 31) as f32 / 31.0 - 0.5;
        let length = 2 + i * 3 % 5;
        let is_action: Vec<bool> = (0..length).map(|t| i % 3 != 1 || t != 1).collect();
        let actions = is_action.iter().filter(|&&it| it).count() as u32;
        let finish = if i % 4 == 3 { FinishReason::Length } else { FinishReason::Stop };
        let states = actions + u32::from(has_end && finish == FinishReason::Stop);
        let numbers = |count: u32, k: u32| (0..count).map(|t| number(t, k)).collect::<Vec<f32>>();
        let trajectory = Trajectory {
            group: u64::from(i / 2),
            prompt: (0..3 + i / 2 % 3).map(|t| (t * 5 + i / 2 * 7) % 20 + 3).collect(),
            tokens: (0..length).map(|t| (t * 7 + i * 11) % 21 + 3).collect(),
            is_action,
            sampling_log_probs: vec![-3.0; actions as usize],
            supports: None,
            finish,
        };
        let mut experience = Experience::new(trajectory, 0.0);
        experience.advantages = numbers(actions, 1);
        experience.old_log_probs = Some(numbers(actions, 2).iter().map(|x| x - 3.0).collect());
        ValuedExperience { experience, old_values: numbers(states, 3), returns: numbers(states, 4) }
    };
    (0..count).map(one).collect()
}

/// Every gradient, in the order of the parameters.
pub(crate) fn flat<M: Module>(model: &M, gradients: &GradientsParams) -> Vec<f32> {
    struct Collect<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.extend(gradient.into_data().iter::<f32>());
            }
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    model.visit(&mut collect);
    assert!(!collect.1.is_empty());
    collect.1
}

/// Every parameter, in order.
pub(crate) fn parameters<M: Module>(model: &M) -> Vec<f32> {
    struct Collect(Vec<f32>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut collect);
    collect.0
}

pub(crate) fn assert_close(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len(), "{what}");
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0, "{what}: nothing to compare");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}, entry {i}: {a} {b} (largest {largest})");
    }
}
