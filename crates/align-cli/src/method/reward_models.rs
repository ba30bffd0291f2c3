//! Trained reward models as rewards of a run.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use align_model::{
    adapter::SavedAdapter,
    chat::{ChatTemplates, RenderOptions},
    decoder::Decoder,
    pretrained::Checkpoint,
    tokenizer::Tokenizer,
};
use align_reward::{
    compose::WeightedSum,
    function::BoxedReward,
    model::{
        CompletionForm, RewardModel, RewardModelFn, RewardReader, load_reward_adapter, load_reward_model,
    },
};
use align_rl::Rewards;
use anyhow::{Context as _, Result};
use burn::tensor::Device;

use super::Kit;
use crate::{
    hub, model,
    run_file::{
        adapter,
        rewards::{ModelTable, RewardsTable},
    },
};

/// Reward models, each loaded once, however many rewards are made of it.
#[derive(Debug, Default)]
pub(crate) struct RewardModels(RefCell<BTreeMap<PathBuf, Loaded>>);

#[derive(Debug, Clone)]
struct Loaded {
    model: RewardModel<Decoder>,
    tokenizer: Tokenizer,
    templates: Option<ChatTemplates>,
}

/// A reward model's files: a checkpoint, or the adapter of one.
#[derive(Debug)]
pub(super) struct RewardModelFiles {
    /// What was named, or what the adapter was made for.
    pub(super) checkpoint: Checkpoint,
    path: PathBuf,
    adapter: Option<SavedAdapter>,
}

impl RewardModelFiles {
    /// Opens a reward model of this machine or of the Hub.
    pub(super) fn open(name: &Path) -> Result<Self> {
        let path = hub::model_path(name)?;
        if path.join("config.json").is_file() || !path.join("adapter_config.json").is_file() {
            return Ok(Self { checkpoint: model::open(name)?, path: name.into(), adapter: None });
        }
        let adapter = adapter::open(&path)?;
        let base = adapter.base_model().with_context(|| {
            format!("the adapter {} does not say which model it was made for", path.display())
        })?;
        let base = PathBuf::from(base);
        let made_for = || format!("the adapter {} was made for {}", path.display(), base.display());
        Ok(Self {
            checkpoint: model::open(&base).with_context(made_for)?,
            path: base,
            adapter: Some(adapter),
        })
    }

    /// Loads it.
    pub(super) fn load(&self, device: &Device) -> Result<RewardModel<Decoder>> {
        let Self { checkpoint, path, adapter } = self;
        match adapter {
            None => Ok(load_reward_model(path, checkpoint, device)?),
            Some(adapter) => Ok(load_reward_adapter(path, checkpoint, adapter, device)?),
        }
    }
}

impl Kit<'_> {
    /// What the run is trained on, as it is at its beginning.
    pub(super) fn training_rewards(&self) -> Result<Rewards> {
        self.rewards.training(|table| self.reward_model(table))
    }

    /// What the run is measured by, as it is at its beginning.
    pub(super) fn new_rewards(&self) -> Result<WeightedSum> {
        self.build(self.rewards)
    }

    /// Such rewards, as they are before they have seen anything.
    pub(super) fn build(&self, rewards: &RewardsTable) -> Result<WeightedSum> {
        rewards.build(|table| self.reward_model(table))
    }

    /// A reward model of this machine or of the Hub.
    fn reward_model(&self, table: &ModelTable) -> Result<BoxedReward> {
        let mut kept = self.reward_models.0.borrow_mut();
        let loaded = if let Some(loaded) = kept.get(&table.path) {
            loaded.clone()
        } else {
            let failed = || format!("cannot load the reward model {}", table.path.display());
            let loaded = self.load(table).with_context(failed)?;
            kept.insert(table.path.clone(), loaded.clone());
            loaded
        };
        let Loaded { model, tokenizer, templates } = loaded;
        let render = RenderOptions { now: Some(self.now), ..RenderOptions::default() };
        let reads = CompletionForm::Text;
        let as_read = RewardReader { tokenizer, templates, render, reads };
        let reward = RewardModelFn::new(&table.name, model, as_read)?;
        Ok(Box::new(reward.in_batches_of(table.micro_batch_size)))
    }

    fn load(&self, table: &ModelTable) -> Result<Loaded> {
        let files = RewardModelFiles::open(&table.path)?;
        let model = files.load(self.start.device)?;
        let tokenizer = files.checkpoint.tokenizer()?;
        let templates = model::chat_templates(&tokenizer)?;
        Ok(Loaded { model, tokenizer, templates })
    }
}
