//! Trained reward models as rewards of a run.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

use align_model::{
    chat::{ChatTemplates, RenderOptions},
    decoder::Decoder,
    tokenizer::Tokenizer,
};
use align_reward::{
    compose::WeightedSum,
    function::BoxedReward,
    model::{CompletionForm, RewardModel, RewardModelFn, RewardReader, load_reward_model},
};
use align_rl::Rewards;
use anyhow::{Context as _, Result};

use super::Kit;
use crate::{
    model,
    run_file::rewards::{ModelTable, RewardsTable},
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
        let checkpoint = model::open(&table.path)?;
        let model = load_reward_model(&table.path, &checkpoint, self.start.device)?;
        let tokenizer = checkpoint.tokenizer()?;
        let templates = model::chat_templates(&tokenizer)?;
        Ok(Loaded { model, tokenizer, templates })
    }
}
