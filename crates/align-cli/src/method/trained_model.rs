//! What a method trains: a decoder, or one with a head that scores.

use std::{fmt, path::Path};

use align_model::{
    adapter::save_adapter,
    decoder::Decoder,
    pretrained::{Checkpoint, ClassifierKind, SaveOptions},
};
use align_reward::model::{
    RewardModel, adapter_head, reward_model_from, save_reward_adapter, save_reward_model,
};
use anyhow::{Context as _, Result};
use burn::module::Module;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

use super::{Dress, Start};
use crate::run_file::adapter;

/// A model that a run loads, trains and writes.
pub(crate) trait TrainedModel: Module + fmt::Debug {
    /// The model to start from; `dress` gives its decoder the number format and the adapter of the run, and `seed` draws
    /// what the files lack.
    fn load(start: Start<'_>, seed: u64, dress: Dress<'_>) -> Result<Self>;

    /// Its decoder.
    fn decoder(&self) -> &Decoder;

    /// Writes it.
    fn save(&self, base: &Checkpoint, place: &Path, options: SaveOptions) -> Result<()>;

    /// Writes its adapter.
    fn save_adapter(&self, place: &Path, base: &str) -> Result<()>;

    /// The same with weights that have taken the adapter in.
    fn merge(self) -> Result<Self>;
}

impl TrainedModel for Decoder {
    fn load(start: Start<'_>, _seed: u64, dress: Dress<'_>) -> Result<Self> {
        dress(start.checkpoint.load(start.device).context("cannot load the model")?)
    }

    fn decoder(&self) -> &Decoder {
        self
    }

    fn save(&self, base: &Checkpoint, place: &Path, options: SaveOptions) -> Result<()> {
        Ok(base.save(self, place, options)?)
    }

    fn save_adapter(&self, place: &Path, base: &str) -> Result<()> {
        Ok(save_adapter(self, place, Some(base))?)
    }

    fn merge(self) -> Result<Self> {
        Ok(self.merge_adapter()?)
    }
}

impl TrainedModel for RewardModel<Decoder> {
    fn load(start: Start<'_>, seed: u64, dress: Dress<'_>) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let kind = (ClassifierKind::Sequence, 1);
        let Start { path, checkpoint, device, .. } = start;
        let saved = start.adapter.map(adapter::open).transpose()?;
        let head = saved.map(|saved| adapter_head(checkpoint, &saved, Some(kind), device)).transpose();
        let Self { backbone, head } = match head.context("cannot use the adapter's head")?.flatten() {
            Some(head) => {
                Self { backbone: checkpoint.load_backbone(device).context("cannot load the model")?, head }
            }
            None => reward_model_from(path, checkpoint, kind, &mut rng, device)
                .context("cannot load the model")?,
        };
        Ok(Self { backbone: dress(backbone)?, head })
    }

    fn decoder(&self) -> &Decoder {
        &self.backbone
    }

    fn save(&self, base: &Checkpoint, place: &Path, options: SaveOptions) -> Result<()> {
        Ok(save_reward_model(self, base, place, options)?)
    }

    fn save_adapter(&self, place: &Path, base: &str) -> Result<()> {
        Ok(save_reward_adapter(self, place, Some(base))?)
    }

    fn merge(self) -> Result<Self> {
        let Self { backbone, head } = self;
        Ok(Self { backbone: backbone.merge_adapter()?, head })
    }
}
