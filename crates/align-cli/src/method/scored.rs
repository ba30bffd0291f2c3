//! What the methods that learn from rewards have in common: prompts, completions, scores.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::TokenBatch,
    chat::RenderOptions,
    data::{Located, PromptRecord},
    decoder::Decoder,
    memory::parameters,
};
use align_reward::{function::score_rollouts, rollout::Rollout, score::Score, spec::RewardSpec};
use align_rl::{
    PolicyReference, Rewards,
    group::{HeldOut, PolicyEvaluation},
    rollout::{LongPrompt, PromptExample, PromptTokenizer, RolloutConfig},
    watch::GoldEvaluation,
};
use anyhow::{Context as _, Result, ensure};

use super::{
    Around, Beside, Example, Kit, Learnt, Measured, Note, Part, Texts, Tokenized,
    reward_models::RewardModelFiles,
};
use crate::run_file::rewards::{RewardSource, RewardsTable};

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
        let limit = rollout.prompt_limit.map(|limit| (limit.tokens.get(), limit.on_too_long));
        let (note, is_kept) = match limit {
            _ if tokens == 0 => (Some(Note::NoPrompt), false),
            Some((limit, LongPrompt::LeaveOut)) if tokens > limit => (Some(Note::LongPrompt), false),
            Some((limit, LongPrompt::KeepEnd)) if tokens > limit => (Some(Note::CutPrompt), limit < context),
            _ if tokens >= context => (Some(Note::FillsContext), false),
            _ => (None, true),
        };
        let examples = if is_kept { vec![example] } else { Vec::new() };
        Ok(Tokenized { examples, lengths: vec![tokens], notes: note.into_iter().collect() })
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

/// Memory of what is sampled and of the models that score it.
pub(super) fn beside(
    rollout: &RolloutConfig,
    sequences: usize,
    prompts: &[PromptExample],
    policy: &Decoder,
    kit: &Kit<'_>,
) -> Result<Vec<Beside>> {
    let config = policy.config();
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let tokens = sequences.min(rollout.batch_size.get()) * (longest + rollout.max_new_tokens.get());
    let of_token = 2 * config.layers.len() * config.kv_heads * config.head_dim;
    let mut beside =
        vec![Beside { name: "keys and values of what is sampled", bytes: 4 * (tokens * of_token) as u64 }];
    for path in kit.rewards.models() {
        let files = RewardModelFiles::open(path)?;
        let count = parameters(files.checkpoint.architecture().config());
        beside.push(Beside { name: "reward model", bytes: 4 * count as u64 });
    }
    Ok(beside)
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
pub(super) fn reference(kind: Option<PolicyReference>, policy: &Decoder) -> Option<Decoder> {
    kind.map(|kind| match kind {
        PolicyReference::AdapterOff {} => policy.without_adapter(),
        PolicyReference::Frozen {} | PolicyReference::Moving { .. } | PolicyReference::Averaged { .. } => {
            policy.clone()
        }
    })
}

/// Copies of what is trained that a reference is.
pub(super) fn copies(kind: Option<PolicyReference>) -> usize {
    match kind {
        None | Some(PolicyReference::AdapterOff {}) => 0,
        Some(PolicyReference::Frozen {}) => 1,
        Some(PolicyReference::Moving { .. } | PolicyReference::Averaged { .. }) => 2,
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

/// Prompts by which rewards are tried before a run.
const TRIED: usize = 8;

/// Checks that every reward can say something of the first prompts: that it finds the columns that it needs.
pub(super) fn check_rewards(prompts: &[PromptExample], kit: &Kit<'_>) -> Result<()> {
    let rollouts: Vec<Rollout> = prompts
        .iter()
        .take(TRIED)
        .map(|prompt| Rollout { columns: prompt.columns.clone(), ..Rollout::new(prompt.prompt.clone(), "") })
        .collect();
    for (index, part) in kit.rewards.parts.iter().enumerate() {
        match &part.source {
            RewardSource::Model(table) => {
                RewardModelFiles::open(&table.path).with_context(|| format!("rewards[{index}].path"))?;
            }
            RewardSource::Described(spec) => {
                try_reward(spec, &rollouts).with_context(|| format!("rewards[{index}]"))?;
            }
        }
    }
    Ok(())
}

/// Why there is no score.
fn reason(score: Score) -> Option<String> {
    match score {
        Score::Value(_) => None,
        Score::Unscored { reason } => Some(reason),
    }
}

fn try_reward(spec: &RewardSpec, rollouts: &[Rollout]) -> Result<()> {
    let mut reward = spec.build()?;
    let scores = score_rollouts(&mut reward, rollouts)?.scores;
    let reasons: Vec<String> = scores.into_iter().filter_map(reason).collect();
    ensure!(
        reasons.len() < rollouts.len() || rollouts.is_empty(),
        "it scores none of the first {} prompts: {}",
        rollouts.len(),
        reasons.first().map_or("", String::as_str)
    );
    Ok(())
}

/// What a policy gets for one completion of each held-out prompt, with the margin of the mean's 95 % interval.
pub(super) fn evaluate(
    rollout: &RolloutConfig,
    seed: u64,
    policy: &Decoder,
    prompts: &[PromptExample],
    kit: &Kit<'_>,
) -> Result<Measured> {
    let once = RolloutConfig { samples: NonZeroUsize::MIN, ..ending(rollout, kit) };
    let held_out = HeldOut { prompts, rollout: &once, seed, tokenizer: Some(kit.tokenizer) };
    let found = held_out.evaluate(policy, None, &mut Rewards::from(kit.new_rewards()?))?;
    let alone = |(name, _): &(String, f64)| name != "frac_reward_zero_std";
    Ok(found.metrics().into_iter().filter(alone).collect())
}

/// What a policy gets for completions of held-out prompts by the rewards that it is trained on and by a better measure, and
/// how far it has gone from `start`.
pub(super) fn gold(
    rollout: &RolloutConfig,
    seed: u64,
    [policy, start]: [&Decoder; 2],
    (prompts, gold): (&[PromptExample], &RewardsTable),
    kit: &Kit<'_>,
) -> Result<GoldEvaluation> {
    let once = RolloutConfig { samples: NonZeroUsize::MIN, ..ending(rollout, kit) };
    let held_out = HeldOut { prompts, rollout: &once, seed, tokenizer: Some(kit.tokenizer) };
    let mut found = held_out.evaluate(policy, Some(start), &mut Rewards::from(kit.new_rewards()?))?;
    let of = |found: &PolicyEvaluation| {
        found.reward().context("no completion of the held-out prompts has a score")
    };
    let (proxy, kl) = (of(&found)?.mean, found.kl.unwrap_or_default());
    let rollouts: Vec<Rollout> = found.scored.samples.iter().map(|sample| sample.rollout.clone()).collect();
    found.scored.scores = Rewards::from(kit.build(gold)?).score(&rollouts)?;
    let gold = of(&found).context("gold.rewards")?;
    Ok(GoldEvaluation { kl, proxy, gold: gold.mean, gold_standard_error: gold.standard_error })
}

/// Completions of each prompt that a dry run samples, and tokens of each, at most.
const TRIED_SAMPLES: usize = 2;
const TRIED_TOKENS: usize = 24;

/// Some short completions of a policy that has not learnt anything yet, with their scores.
pub(super) fn tried(
    rollout: &RolloutConfig,
    seed: u64,
    policy: &Decoder,
    prompts: &[PromptExample],
    kit: &Kit<'_>,
) -> Result<Vec<String>> {
    let few = |own: NonZeroUsize, most: usize| own.min(NonZeroUsize::MIN.saturating_add(most - 1));
    let short = RolloutConfig {
        samples: few(rollout.samples, TRIED_SAMPLES),
        max_new_tokens: few(rollout.max_new_tokens, TRIED_TOKENS),
        ..ending(rollout, kit)
    };
    let held_out = HeldOut { prompts, rollout: &short, seed, tokenizer: Some(kit.tokenizer) };
    let scored = held_out.evaluate(policy, None, &mut Rewards::from(kit.new_rewards()?))?.scored;
    let (count, most) = (scored.samples.len(), short.max_new_tokens);
    let heading =
        format!("completions {count} of the model as it is, of at most {most} tokens, and what they get");
    let rows = scored.rows(0, &vec![None; count]);
    let totals = scored.scores.totals;
    ensure!(
        count == 0 || totals.iter().any(|score| !score.is_unscored()),
        "[[rewards]] give none of {count} completions a score: {}",
        totals.into_iter().find_map(reason).unwrap_or_default()
    );
    Ok(std::iter::once(heading).chain(rows.iter().map(|row| format!("\n{row}"))).collect())
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
