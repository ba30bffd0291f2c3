//! What the methods whose models write have in common: prompts, and completions of them.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::TokenBatch,
    chat::RenderOptions,
    data::{Located, PromptRecord},
    decoder::{Decoder, DecoderConfig},
};
use align_rl::{
    PolicyReference,
    rollout::{LongPrompt, PromptExample, PromptTokenizer, RolloutConfig},
};
use anyhow::{Context as _, Result, ensure};

use super::{Around, Beside, Example, Kit, Learnt, Note, Part, Texts, Tokenized};

/// Makes an example of a prompt.
pub(super) fn tokenize<'a>(
    rollout: &'a RolloutConfig,
    texts: Texts<'a>,
) -> impl Fn(&Located<PromptRecord>) -> Result<Tokenized<PromptExample>> + 'a {
    let Texts { tokenizer, templates, now, context, .. } = texts;
    let render = RenderOptions { now: Some(now), ..RenderOptions::prompt() };
    move |located| {
        let tokenizer = PromptTokenizer { tokenizer, templates, render: &render };
        let example = tokenizer.located(located).context("cannot prepare the data")?;
        let tokens = example.tokens.len();
        let (note, is_kept) = look_at(tokens, rollout, context);
        let examples = if is_kept { vec![example] } else { Vec::new() };
        Ok(Tokenized { examples, lengths: vec![tokens], notes: note.into_iter().collect() })
    }
}

/// What is noteworthy about a prompt of so many tokens, and whether it is kept.
pub(super) fn look_at(tokens: usize, rollout: &RolloutConfig, context: usize) -> (Option<Note>, bool) {
    match rollout.prompt_limit.map(|limit| (limit.tokens.get(), limit.on_too_long)) {
        _ if tokens == 0 => (Some(Note::NoPrompt), false),
        Some((limit, LongPrompt::LeaveOut)) if tokens > limit => (Some(Note::LongPrompt), false),
        Some((limit, LongPrompt::KeepEnd)) if tokens > limit => (Some(Note::CutPrompt), limit < context),
        _ if tokens >= context => (Some(Note::FillsContext), false),
        _ => (None, true),
    }
}

/// The largest pass over completions of some prompts: all of them as long as they may be.
pub(super) fn pass(
    rollout: &RolloutConfig,
    micro_batch_size: usize,
    prompts: &[&PromptExample],
) -> (TokenBatch, usize) {
    let mut batch = TokenBatch::default();
    let mut left = micro_batch_size;
    let longest = vec![0; rollout.max_new_tokens.get()];
    for prompt in prompts {
        let count = rollout.samples.get().min(left);
        left -= count;
        if count > 0 {
            batch.push_sharing(&prompt.tokens, &vec![longest.as_slice(); count]);
        }
    }
    (batch, (micro_batch_size - left) * longest.len())
}

/// Memory of the keys and values of so many sequences, while a model of this shape samples them.
pub(super) fn keys_and_values(
    rollout: &RolloutConfig,
    sequences: usize,
    prompts: &[PromptExample],
    config: &DecoderConfig,
) -> Beside {
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let tokens = sequences.min(rollout.batch_size.get()) * (longest + rollout.max_new_tokens.get());
    let of_token = 2 * config.layers.len() * config.kv_heads * config.head_dim;
    Beside { name: "keys and values of what is sampled", bytes: 4 * (tokens * of_token) as u64 }
}

/// Whether a run file has what a reference needs; `settings` is the name of the table of settings.
pub(super) fn check_reference(settings: &str, policy: Option<PolicyReference>, around: Around) -> Result<()> {
    ensure!(
        around.has_adapter || !matches!(policy, Some(PolicyReference::AdapterOff {})),
        "{settings}.reference = {{ kind = \"adapter_off\" }} needs an adapter to switch off: add [adapter]"
    );
    Ok(())
}

/// The reference of a run that starts from `policy`.
pub(super) fn reference(kind: PolicyReference, policy: &Decoder) -> Decoder {
    match kind {
        PolicyReference::AdapterOff {} => policy.without_adapter(),
        PolicyReference::Frozen {} | PolicyReference::Moving { .. } | PolicyReference::Averaged { .. } => {
            policy.clone()
        }
    }
}

/// Copies of what is trained that a reference is.
pub(super) fn copies(kind: PolicyReference) -> usize {
    match kind {
        PolicyReference::AdapterOff {} => 0,
        PolicyReference::Frozen {} => 1,
        PolicyReference::Moving { .. } | PolicyReference::Averaged { .. } => 2,
    }
}

/// Settings of rollouts whose completions end where the model ends what it says.
pub(super) fn ending(rollout: &RolloutConfig, kit: &Kit<'_>) -> RolloutConfig {
    let mut rollout = rollout.clone();
    for end in kit.ends {
        if !rollout.stop.tokens.contains(end) {
            rollout.stop.tokens.push(*end);
        }
    }
    rollout
}

/// Completions of each prompt that a dry run samples, and tokens of each, at most.
const TRIED_SAMPLES: usize = 2;
const TRIED_TOKENS: usize = 24;

/// Settings of rollouts for a dry run: few and short.
pub(super) fn tried(rollout: &RolloutConfig, kit: &Kit<'_>) -> RolloutConfig {
    let few = |own: NonZeroUsize, most: usize| own.min(NonZeroUsize::MIN.saturating_add(most - 1));
    RolloutConfig {
        samples: few(rollout.samples, TRIED_SAMPLES),
        max_new_tokens: few(rollout.max_new_tokens, TRIED_TOKENS),
        ..ending(rollout, kit)
    }
}

impl Example for PromptExample {
    const PLURAL: &'static str = "prompts";

    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part { name: "", tokens: &self.tokens, learnt: Learnt::None }]
    }

    /// What rewards may look at besides.
    fn label(&self) -> Option<String> {
        let columns = self.columns.iter().map(|(name, value)| format!("{name} {value}"));
        let columns: Vec<String> = columns.collect();
        (!columns.is_empty()).then(|| columns.join(", "))
    }
}
