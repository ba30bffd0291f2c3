//! A trained reward model as a reward.

use std::{fmt, num::NonZeroUsize, path::Path};

use align_model::{
    causal_lm::CausalLm,
    chat::{ChatError, ChatTemplates, RenderOptions},
    decoder::Decoder,
    pretrained::{Checkpoint, LoadError},
    tokenizer::{SpecialTokens, Tokenizer, TokenizerError},
};
use burn::{module::Module as _, tensor::Device};

use super::{RewardModel, load_reward_model};
use crate::{
    function::{RewardError, RewardFn},
    rollout::{FinishReason, Prompt, Rollout},
    score::Score,
};

const EIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// A reward model that scores rollouts: what its head says of prompt and completion.
///
/// A rollout that does not fit the model's context, or that its template refuses, is unscored.
pub struct RewardModelFn<M: CausalLm> {
    name: String,
    model: RewardModel<M>,
    reader: RewardReader,
    at_once: NonZeroUsize,
}

/// How rollouts become the tokens that a reward model reads.
#[derive(Debug)]
pub struct RewardReader {
    /// The reward model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat templates; needed where prompts are conversations.
    pub templates: Option<ChatTemplates>,
    /// Which template, the date that it is told, and further variables.
    pub render: RenderOptions,
    /// What is read of a completion.
    pub reads: CompletionForm,
}

/// What a reward model reads of a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompletionForm {
    /// Its text, tokenised and ended as in the reward model's training data: what follows an end token in the template is
    /// there, and the head reads where it learnt to.
    #[default]
    Text,
    /// The tokens that the policy sampled, whose tokenizer has to be the reward model's. The head reads at the last of
    /// them, as in TRL's PPO, and a completion that was cut short has no end.
    Tokens,
}

/// A reward model cannot be made a reward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardModelError {
    /// The directory cannot be read as a reward model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its tokenizer cannot be read.
    #[error("the reward model's tokenizer cannot be read")]
    Tokenizer(#[from] TokenizerError),
    /// Its chat template cannot be read.
    #[error("the reward model's chat template cannot be read")]
    Template(#[from] ChatError),
    /// The head says more than one number.
    #[error(
        "the reward model's head has {labels} labels, a reward is one number: combine them in a reward of your own"
    )]
    Labels {
        /// Its labels.
        labels: usize,
    },
}

impl RewardModelFn<Decoder> {
    /// A reward model's directory, as [`save_reward_model`](super::save_reward_model) and transformers write it, as a
    /// reward called `name`.
    ///
    /// # Errors
    /// If it holds no reward model with a single label, or a part of it cannot be read.
    pub fn from_directory(
        name: impl Into<String>,
        directory: &Path,
        device: &Device,
    ) -> Result<Self, RewardModelError> {
        let model = load_reward_model(directory, &Checkpoint::open(directory)?, device)?;
        let tokenizer = Tokenizer::from_directory(directory)?;
        let has_template = !tokenizer.chat_templates().is_empty();
        let templates = has_template.then(|| ChatTemplates::from_tokenizer(&tokenizer)).transpose()?;
        let (render, reads) = (RenderOptions::default(), CompletionForm::Text);
        Self::new(name, model, RewardReader { tokenizer, templates, render, reads })
    }
}

impl<M: CausalLm> RewardModelFn<M> {
    /// This model as a reward called `name`.
    ///
    /// # Errors
    /// If its head says more than one number.
    pub fn new(
        name: impl Into<String>,
        model: RewardModel<M>,
        reader: RewardReader,
    ) -> Result<Self, RewardModelError> {
        let labels = model.labels();
        if labels != 1 {
            return Err(RewardModelError::Labels { labels });
        }
        Ok(Self { name: name.into(), model: model.valid(), reader, at_once: EIGHT })
    }

    /// The same with so many rollouts in a forward pass, instead of 8.
    #[must_use]
    pub fn in_batches_of(mut self, rollouts: NonZeroUsize) -> Self {
        self.at_once = rollouts;
        self
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &RewardModel<M> {
        &self.model
    }

    /// The tokens that are scored, or why there are none.
    fn encode(&self, rollout: &Rollout) -> Result<Vec<u32>, String> {
        let tokens = self.reader.tokens(rollout)?;
        let (limit, vocab) = (self.model.backbone.max_positions(), self.model.backbone.vocab_size());
        if tokens.is_empty() {
            return Err("there is nothing to score".into());
        }
        if tokens.len() > limit {
            return Err(format!("{} tokens do not fit the reward model's context of {limit}", tokens.len()));
        }
        match tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(token) => Err(format!("the reward model has no token {token}")),
            None => Ok(tokens),
        }
    }
}

impl RewardReader {
    /// The tokens that a reward model reads of a rollout.
    ///
    /// # Errors
    /// The reason why there are none.
    pub fn tokens(&self, rollout: &Rollout) -> Result<Vec<u32>, String> {
        match self.reads {
            CompletionForm::Text => self.whole(rollout),
            CompletionForm::Tokens => {
                let completion =
                    rollout.tokens.as_ref().ok_or("the rollout has no tokens, and the reward reads them")?;
                Ok([self.prompt(&rollout.prompt)?.as_slice(), completion].concat())
            }
        }
    }

    fn whole(&self, rollout: &Rollout) -> Result<Vec<u32>, String> {
        if let Some(conversation) = rollout.conversation() {
            let options = RenderOptions { continue_final_message: false, ..self.asked(false) };
            let ids = self.templates()?.render_ids(&self.tokenizer, &conversation, None, &options);
            return ids.map_err(|error| error.to_string());
        }
        let text = format!("{}{}", rollout.prompt.text(), rollout.completion);
        let mut tokens = self.encode(&text)?;
        if let Some(end) = self.tokenizer.eos_id()
            && tokens.last() != Some(&end)
            && rollout.finish == FinishReason::Stop
        {
            tokens.push(end);
        }
        Ok(tokens)
    }

    fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, String> {
        match prompt {
            Prompt::Text(text) => self.encode(text),
            Prompt::Messages(messages) => {
                let ids = self.templates()?.render_ids(&self.tokenizer, messages, None, &self.asked(true));
                ids.map_err(|error| error.to_string())
            }
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.tokenizer.encode(text, SpecialTokens::Add).map_err(|error| error.to_string())
    }

    fn asked(&self, add_generation_prompt: bool) -> RenderOptions {
        RenderOptions { add_generation_prompt, continue_final_message: false, ..self.render.clone() }
    }

    fn templates(&self) -> Result<&ChatTemplates, String> {
        self.templates
            .as_ref()
            .ok_or_else(|| "the prompt is a conversation, the reward has no template".into())
    }
}

impl<M: CausalLm> RewardFn for RewardModelFn<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let encoded: Vec<Result<Vec<u32>, String>> = rollouts.iter().map(|it| self.encode(it)).collect();
        let sequences: Vec<&Vec<u32>> = encoded.iter().flatten().collect();
        let failed = |error: super::ScoringError| RewardError::Failed {
            function: self.name.clone(),
            reason: error.to_string(),
        };
        let values = self.model.score_sequences(&sequences, self.at_once.get()).map_err(failed)?;
        let mut values = values.into_iter().map(|labels| labels[0]);
        let score = |encoded: Result<Vec<u32>, String>| match encoded {
            Ok(_) => values.next().into(),
            Err(reason) => Score::unscored(reason),
        };
        Ok(encoded.into_iter().map(score).collect())
    }
}

impl<M: CausalLm> fmt::Debug for RewardModelFn<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reader, at_once, .. } = self;
        let mut debug = f.debug_struct("RewardModelFn");
        debug
            .field("name", name)
            .field("reads", &reader.reads)
            .field("at_once", at_once)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use align_model::chat::Message;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::function::score_rollouts;

    const WORDS: [&str; 8] = ["<unk>", "<s>", "</s>", "how", "are", "you", "fine", ":"];

    /// A directory with a small reward model whose tokenizer knows a few words.
    fn directory() -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny/reward_model");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(golden.join(name), directory.path().join(name)).unwrap();
        }
        let vocab: serde_json::Map<_, _> =
            WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
        let special = |id: usize| {
            json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": [special(0), special(1), special(2)], "decoder": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        });
        let template = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }}</s> : {% endfor %}\
                        {% if add_generation_prompt %}assistant : {% endif %}";
        let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
        fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        directory
    }

    fn reward(directory: &TempDir) -> RewardModelFn<Decoder> {
        RewardModelFn::from_directory("model", directory.path(), &Device::flex()).unwrap()
    }

    #[test]
    fn the_head_reads_where_it_learnt_to() {
        let directory = directory();
        let mut reward = reward(&directory);
        let tokens =
            |reward: &RewardModelFn<Decoder>, rollout: &Rollout| reward.reader.tokens(rollout).unwrap();
        let text = Rollout::new("how are you", " fine").with_tokens(vec![6, 2]);
        assert_eq!(tokens(&reward, &text), [3, 4, 5, 6, 2]);
        let cut = text.clone().finished(FinishReason::Length);
        assert_eq!(tokens(&reward, &cut), [3, 4, 5, 6]);
        let chat = Rollout::new(vec![Message::user("how are you")], "fine").with_tokens(vec![6, 2]);
        assert_eq!(tokens(&reward, &chat), [0, 7, 3, 4, 5, 2, 7, 0, 7, 6, 2, 7]);
        reward.reader.reads = CompletionForm::Tokens;
        assert_eq!(tokens(&reward, &chat), [0, 7, 3, 4, 5, 2, 7, 0, 7, 6, 2]);
        assert_eq!(tokens(&reward, &text), [3, 4, 5, 6, 2]);
        assert!(reward.reader.tokens(&Rollout::new("how", "fine")).is_err());
    }

    #[test]
    fn scores_are_the_models_and_keep_their_places() {
        let directory = directory();
        let mut reward = reward(&directory).in_batches_of(NonZeroUsize::MIN.saturating_add(1));
        let long = Rollout::new("how", " are".repeat(300));
        let rollouts = [
            Rollout::new("how", " fine"),
            long,
            Rollout::new("how are", " you"),
            Rollout::new("you", " fine"),
        ];
        let scored = score_rollouts(&mut reward, &rollouts).unwrap().scores;
        let expected =
            reward.model().score_sequences(&[vec![3, 6, 2], vec![3, 4, 5, 2], vec![5, 6, 2]], 3).unwrap();
        let reason = "302 tokens do not fit the reward model's context of 256";
        assert_eq!(scored[1], Score::unscored(reason));
        for (index, expected) in [(0, &expected[0]), (2, &expected[1]), (3, &expected[2])] {
            assert!((scored[index].value().unwrap() - expected[0]).abs() < 1e-5);
        }
    }

    #[test]
    fn what_cannot_be_read_is_unscored_for_a_reason() {
        let directory = directory();
        let mut reward = reward(&directory);
        reward.reader.templates = None;
        reward.reader.reads = CompletionForm::Tokens;
        let rollouts = [
            Rollout::new(vec![Message::user("how")], "fine").with_tokens(vec![6]),
            Rollout::new("how", "fine"),
            Rollout::new("how", "fine").with_tokens(vec![9999]),
            Rollout::new("", "").with_tokens(Vec::new()),
        ];
        let scored = score_rollouts(&mut reward, &rollouts).unwrap().scores;
        let reasons = [
            "the prompt is a conversation, the reward has no template",
            "the rollout has no tokens, and the reward reads them",
            "the reward model has no token 9999",
            "there is nothing to score",
        ];
        assert_eq!(scored, reasons.map(Score::unscored));
    }

    #[test]
    fn a_language_model_is_refused() {
        let directory = directory();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny/model");
        fs::copy(golden.join("config.json"), directory.path().join("config.json")).unwrap();
        fs::copy(golden.join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
        let error = RewardModelFn::from_directory("model", directory.path(), &Device::flex()).unwrap_err();
        assert!(matches!(error, RewardModelError::Load(_)), "{error}");
    }
}
