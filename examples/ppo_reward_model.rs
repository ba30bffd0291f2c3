//! PPO against a trained reward model: pairs of answers teach a model which is better, and a policy learns to please it.
//!
//! ```text
//! cargo run --release --example ppo_reward_model
//! ```
//!
//! Everything is so small that it takes seconds: a language of a few words, a policy that begins with random weights, and a
//! reward model that has seen that kind words are preferred to rude ones. Whether PPO did what was meant is measured by
//! counting kind words, which nothing was trained on.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::{error::Error, fs, path::Path};

use align_kit::{
    model::{
        chat::RenderOptions,
        decoder::Decoder,
        generate::StopAt,
        number::Positive,
        preference::PreferenceExample,
        pretrained::{Architecture, ClassifierKind},
        tokenizer::{SpecialTokens, Tokenizer},
        train::{Schedule, Span, Step as _, UpdateConfig},
    },
    reward::{
        model::{CompletionForm, RewardModel, RewardModelFn, RewardReader, ScoreHead},
        rollout::Prompt,
        trainer::{RewardConfig, RewardTrainer},
    },
    rl::{
        PpoConfig, PpoModels, PpoTrainer, Rewards,
        critic::value_head,
        rollout::{PromptExample, RolloutConfig},
    },
};
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::{Map, Value, json};

const WORDS: [&str; 16] = [
    "<unk>", "<s>", "</s>", "warm", "kind", "fair", "calm", "bad", "rude", "cruel", "loud", "you", "are",
    "was", "so", "and",
];
const KIND: [&str; 4] = ["warm", "kind", "fair", "calm"];
const HIDDEN: usize = 32;
const STEPS: u64 = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let history = run(STEPS)?;
    for (step, (score, kindness)) in history.iter().enumerate() {
        println!("step {:2}  reward model {score:+.3}  kind words {:.0} %", step + 1, 100.0 * kindness);
    }
    Ok(())
}

/// The mean score and the share of kind words of each step's completions.
fn run(steps: u64) -> Result<Vec<(f64, f64)>, Box<dyn Error>> {
    let tokenizer = tokenizer()?;
    let reward_model = reward_model(&tokenizer)?;
    // The critic begins as what it has to predict: the reward model, with a head that says 0.
    let critic = RewardModel::new(reward_model.backbone.clone(), value_head(HIDDEN, &Device::flex()));
    let reader = RewardReader {
        tokenizer: tokenizer.clone(),
        templates: None,
        render: RenderOptions::default(),
        reads: CompletionForm::Text,
    };
    let rewards = Rewards::one(RewardModelFn::new("reward_model", reward_model, reader)?);

    let config = config();
    let models = PpoModels { policy: decoder(1)?, reference: Some(decoder(1)?), critic: critic.into() };
    let mut trainer = PpoTrainer::new(models, rewards, Some(tokenizer.clone()), &config, steps)?;
    let prompts = prompts(&tokenizer)?;
    let mut history = Vec::new();
    for _ in 0..steps {
        let report = trainer.step(&prompts)?;
        let texts: Vec<&str> = report.rollouts.iter().map(|row| row.completion.as_str()).collect();
        history.push((report.get("objective/scores").unwrap_or(f64::NAN), kindness(&texts)));
    }
    Ok(history)
}

fn config() -> PpoConfig {
    let rollout = RolloutConfig {
        samples: std::num::NonZeroUsize::MIN,
        max_new_tokens: std::num::NonZeroUsize::MIN.saturating_add(7),
        stop: StopAt { tokens: vec![2], strings: Vec::new() },
        ..RolloutConfig::default()
    };
    PpoConfig { rollout, update: constant(5e-3), critic_update: constant(5e-3), ..PpoConfig::default() }
}

fn constant(learning_rate: f64) -> UpdateConfig {
    let (learning_rate, schedule) =
        (Positive::new(learning_rate), Schedule::Constant { warmup: Span::Steps(0) });
    UpdateConfig { learning_rate, schedule, ..UpdateConfig::default() }
}

/// Learns from pairs whose better answer is kind and whose worse one is rude, or says nothing.
fn reward_model(tokenizer: &Tokenizer) -> Result<RewardModel<Decoder>, Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let head = ScoreHead::random(ClassifierKind::Sequence, [1, HIDDEN], 0.1, &mut rng, &Device::flex());
    let model = RewardModel::new(decoder(2)?.without_head(), head);
    let config = RewardConfig { update: constant(5e-3), ..RewardConfig::default() };
    let mut trainer = RewardTrainer::new(model, &config, 40)?;
    // What is neither kind nor rude is worse than what is kind, too.
    let worse = [["bad", "rude", "cruel", "loud"], ["you", "was", "so", "and"]];
    let encode = |text: String| tokenizer.encode(&text, SpecialTokens::Omit);
    for step in 0..40_usize {
        let pair = |i: usize| {
            let words = |from: [&str; 4]| {
                let word = |k: usize| from[(i * 5 + k * 3 + step) % 4];
                (0..2 + (i + step) % 5).map(word).collect::<Vec<_>>().join(" ")
            };
            Ok::<_, Box<dyn Error>>(PreferenceExample {
                prompt: encode("you are".into())?,
                chosen: encode(format!("{} </s>", words(KIND)))?,
                rejected: encode(format!("{} </s>", words(worse[i % 2])))?,
                gold: None,
                margin: None,
                slice: None,
            })
        };
        let pairs = (0..8).map(pair).collect::<Result<Vec<_>, _>>()?;
        trainer.step(pairs.as_slice())?;
    }
    Ok(trainer.into_model())
}

fn prompts(tokenizer: &Tokenizer) -> Result<Vec<PromptExample>, Box<dyn Error>> {
    let example = |text: &&str| {
        let tokens = tokenizer.encode(text, SpecialTokens::Omit)?;
        Ok(PromptExample { prompt: Prompt::Text((*text).into()), tokens, columns: Map::new() })
    };
    ["you are", "you was so", "so and so", "are you", "and you", "so so", "and was", "you and"]
        .repeat(4)
        .iter()
        .map(example)
        .collect()
}

fn kindness(completions: &[&str]) -> f64 {
    let words = || completions.iter().flat_map(|text| text.split_whitespace());
    words().filter(|word| KIND.contains(word)).count() as f64 / words().count().max(1) as f64
}

fn decoder(seed: u64) -> Result<Decoder, Box<dyn Error>> {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": WORDS.len(), "hidden_size": HIDDEN,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "initializer_range": 0.1, "tie_word_embeddings": false,
    });
    let architecture = Architecture::from_json(Path::new("config.json"), config)?;
    Ok(architecture.random(&mut ChaCha8Rng::seed_from_u64(seed), &Device::flex()))
}

/// A tokenizer that knows whole words.
fn tokenizer() -> Result<Tokenizer, Box<dyn Error>> {
    let vocab: Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).into(), id.into())).collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
        "added_tokens": [special(0), special(1), special(2)], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string())?;
    fs::write(directory.path().join("tokenizer_config.json"), r#"{"eos_token": "</s>"}"#)?;
    Ok(Tokenizer::from_directory(directory.path())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pleasing_the_reward_model_is_being_kind() {
        let history = run(STEPS).unwrap();
        let ((first, kind_at_first), (last, kind_at_last)) = (history[0], history[history.len() - 1]);
        assert!(last > first && kind_at_last > kind_at_first + 0.2, "{history:?}");
    }
}
