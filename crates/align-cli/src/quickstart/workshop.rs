//! What all stages share: the world, the words, the kind of model, the place on disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use align_model::{
    chat::ChatTemplates,
    decoder::Decoder,
    pretrained::{Architecture, SaveOptions},
    tokenizer::Tokenizer,
};
use anyhow::Context as _;
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::{Value, json};

use super::world::{Task, TaskKind, World, tokenizer_files};
use super::{Options, plan::Plan};
use crate::files;

/// What all stages share.
#[derive(Debug)]
pub(super) struct Workshop {
    /// Where the text comes from.
    pub(super) world: World,
    /// The seed of everything.
    pub(super) seed: u64,
    /// How long everything takes.
    pub(super) plan: Plan,
    /// The directory that everything is written to.
    pub(super) out: PathBuf,
    /// The world's tokenizer.
    pub(super) tokenizer: Tokenizer,
    /// Its chat template.
    pub(super) templates: ChatTemplates,
    /// The kind of model that is trained.
    pub(super) architecture: Architecture,
    /// Requests that no training text mentions; every model answers the same.
    pub(super) held_out: Vec<Task>,
    device: Device,
}

impl Workshop {
    /// Opens the device and makes the output directory.
    pub(super) fn new(options: &Options, plan: &Plan) -> anyhow::Result<Self> {
        let device = options.device.open()?;
        files::make_directory(&options.out)?;
        let tokenizer = tokenizer()?;
        let templates = ChatTemplates::from_tokenizer(&tokenizer)?;
        let architecture = Architecture::from_json(Path::new("config.json"), config_json(&tokenizer)?)?;
        let world = World::new(options.seed);
        Ok(Self {
            held_out: held_out(world, plan.held_out_per_kind),
            world,
            seed: options.seed,
            plan: *plan,
            out: options.out.clone(),
            tokenizer,
            templates,
            architecture,
            device,
        })
    }

    /// The device that everything is computed on.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// A model that knows nothing.
    pub(super) fn fresh_model(&self) -> Decoder {
        self.architecture.random(&mut ChaCha8Rng::seed_from_u64(self.seed), &self.device)
    }

    /// Writes a model with its tokenizer as a Hugging Face directory.
    pub(super) fn save(&self, model: &Decoder, name: &str) -> anyhow::Result<()> {
        let directory = self.out.join(name);
        let failed = || format!("cannot save the model to {}", directory.display());
        files::make_directory(&directory)?;
        // The tokenizer first: a directory with a `config.json` is complete.
        for (file, text) in tokenizer_files() {
            files::write(&directory.join(file), &text)?;
        }
        self.architecture.save(model, &directory, SaveOptions::default()).with_context(failed)
    }

    /// The token that ends an answer.
    pub(super) fn end_token(&self) -> anyhow::Result<u32> {
        self.tokenizer.eos_id().context("the quickstart's tokenizer has no end-of-text token")
    }
}

/// Reads the tokenizer from its own files, as everybody else will.
fn tokenizer() -> anyhow::Result<Tokenizer> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    for (file, text) in tokenizer_files() {
        files::write(&directory.path().join(file), &text)?;
    }
    Ok(Tokenizer::from_directory(directory.path())?)
}

/// A llama so small that a step takes a few hundredths of a second.
///
/// The weights start five times as large as usual, which a narrow model needs to learn fast; the rotary base is small
/// because positions go to 64 only.
fn config_json(tokenizer: &Tokenizer) -> anyhow::Result<Value> {
    let id = |id: Option<u32>| id.context("the quickstart's tokenizer lacks a special token");
    Ok(json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "rope_theta": 1000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "initializer_range": 0.1,
        "bos_token_id": id(tokenizer.bos_id())?,
        "eos_token_id": id(tokenizer.eos_id())?,
        "pad_token_id": id(tokenizer.pad_id())?,
    }))
}

/// Draws until more draws would hardly bring anything new: some kinds have few held-out combinations.
const DRAWS_PER_TASK: usize = 8;

/// Different held-out requests, at most `per_kind` of each kind, the kinds mixed.
fn held_out(world: World, per_kind: usize) -> Vec<Task> {
    let draws = world.held_out_tasks(per_kind * DRAWS_PER_TASK * TaskKind::ALL.len());
    let mut seen = HashSet::new();
    let mut taken = [0; TaskKind::ALL.len()];
    draws
        .into_iter()
        .filter(|task| {
            let count = &mut taken[task.kind() as usize];
            let wanted = *count < per_kind && seen.insert(task.request());
            *count += usize::from(wanted);
            wanted
        })
        .collect()
}
