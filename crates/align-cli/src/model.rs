//! A model with everything that text needs, ready to use.

use std::path::Path;

use align_model::{
    chat::{ChatError, ChatTemplates},
    decoder::Decoder,
    pretrained::Checkpoint,
    tokenizer::Tokenizer,
};
use anyhow::{Context as _, Result};

use crate::{args::ModelArguments, hub, run_file::adapter::attach_saved};

/// A model, its tokenizer and its chat templates.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Tokenizer,
    /// `None` where the model came without.
    pub(crate) templates: Option<ChatTemplates>,
    /// The tokens that end an answer: the model's own and the tokenizer's.
    pub(crate) end_tokens: Vec<u32>,
}

impl LoadedModel {
    /// Loads the model that the user named.
    pub(crate) fn load(args: &ModelArguments) -> Result<Self> {
        let device = args.device.open()?;
        let checkpoint = open(&args.model)?;
        let tokenizer = checkpoint.tokenizer().context("cannot load the model's tokenizer")?;
        let templates = chat_templates(&tokenizer)?;
        let decoder = checkpoint.load(&device).context("cannot load the model")?;
        let decoder = match &args.adapter {
            Some(adapter) => attach_saved(decoder, checkpoint.architecture().family(), adapter)?,
            None => decoder,
        };
        let end_tokens = end_tokens(&checkpoint, &tokenizer);
        Ok(Self { decoder, tokenizer, templates, end_tokens })
    }
}

/// Opens a checkpoint of this machine or of the Hub.
pub(crate) fn open(name: &Path) -> Result<Checkpoint> {
    let path = hub::model_path(name)?;
    Checkpoint::open(&path).with_context(|| format!("cannot open the model {}", name.display()))
}

/// The tokens that end an answer: the model's own and the tokenizer's.
pub(crate) fn end_tokens(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut end_tokens = checkpoint.end_tokens();
    end_tokens.extend(tokenizer.eos_id().filter(|end| !end_tokens.contains(end)));
    end_tokens
}

/// The chat templates of a model, if it has any.
pub(crate) fn chat_templates(tokenizer: &Tokenizer) -> Result<Option<ChatTemplates>> {
    match ChatTemplates::from_tokenizer(tokenizer) {
        Ok(templates) => Ok(Some(templates)),
        Err(ChatError::NoTemplate) => Ok(None),
        Err(error) => Err(error).context("cannot read the model's chat template"),
    }
}
