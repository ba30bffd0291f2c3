//! A model learns to use a tool. It was shown how calls are written, but mostly guesses; rewarded for right answers, it
//! finds out by itself that the calculator has them.
//!
//! ```text
//! cargo run --release --example tool_environment [SEED]
//! ```
//!
//! A conversation is an environment: the model speaks, the calculator answers, the model speaks again. What the calculator
//! said is part of the text but not learnt from. Model, tokenizer and data are made here, small enough for a CPU.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::{error::Error, path::Path};

use align_kit::{
    model::{
        chat::{ChatTemplates, Message, RenderOptions},
        data::{SftRecord, TemplateColumns},
        decoder::Decoder,
        generate::{Decoding, StopAt},
        number::{Positive, Proportion},
        pretrained::Architecture,
        sft::{LossOn, SftConfig, SftExample, SftTokenizer, SftTrainer},
        tokenizer::Tokenizer,
        train::{Schedule, Span, Step, UpdateConfig},
    },
    reward::{function::each_fn, rollout::Rollout},
    rl::{
        Experience, GroupConfig, GroupTrainer, Preset, Rewards,
        environment::{ConversationTokenizer, EpisodeConfig, Member, Tool, Toolbox, sample_episodes},
        group::Algorithm,
        loss::{AdvantageEstimator, AdvantageScale, ScoredGroups},
        rollout::Sampled,
    },
};
use burn::tensor::Device;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Map, Value, json};

/// Steps of showing how calls are written, and of learning from rewards.
const SHOWN: u64 = 400;
const STEPS: u64 = 120;
/// Problems a step, and conversations of each.
const PROBLEMS: usize = 8;
const GROUP: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?;
    let (before, after) = run(seed, |line| println!("{line}"))?;
    for (when, Proportion { share, low, high, .. }) in [("before", before), ("after", after)] {
        let [share, low, high] = [share, low, high].map(|x| 100.0 * x);
        println!("{when:6}: {share:.0} % of held-out problems right (95 %: {low:.0} to {high:.0})");
    }
    Ok(())
}

/// The share of held-out problems that are solved before and after learning from rewards.
fn run(seed: u64, mut log: impl FnMut(String)) -> Result<(Proportion, Proportion), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = World::new()?;
    let shown = world.shown(&mut rng)?;
    let mut trainer = GroupTrainer::new(shown, None, reward(), None, &group_config(), STEPS)?;
    let held_out: Vec<Problem> = (0..200).map(|_| Problem::draw(&mut rng, true)).collect();
    let before = world.solved(trainer.model(), &held_out)?;
    for step in 0..STEPS {
        let problems: Vec<Problem> = (0..PROBLEMS).map(|_| Problem::draw(&mut rng, false)).collect();
        let samples = world.converse(trainer.model(), &problems, GROUP, rng.next_u64())?;
        let (experience, right) = compared(samples)?;
        trainer.learn(&experience)?;
        if step % 10 == 9 {
            log(format!("step {:3}  right answers {:3.0} %", step + 1, 100.0 * right.share));
        }
    }
    Ok((before, world.solved(trainer.model(), &held_out)?))
}

/// A sum to find.
#[derive(Debug, Clone, Copy)]
struct Problem {
    a: u64,
    b: u64,
}

impl Problem {
    /// Numbers of two digits. Those that are held out are never drawn for learning.
    fn draw(rng: &mut ChaCha8Rng, held_out: bool) -> Self {
        loop {
            let problem = Self { a: 10 + rng.next_u64() % 90, b: 10 + rng.next_u64() % 90 };
            if (problem.a * 7 + problem.b).is_multiple_of(5) == held_out {
                return problem;
            }
        }
    }

    fn question(self) -> Message {
        Message::user(format!("{}+{}", self.a, self.b))
    }

    fn answer(self) -> String {
        (self.a + self.b).to_string()
    }

    fn call(self) -> Message {
        let Self { a, b } = self;
        Message::assistant(format!(
            "<tool_call>{{\"name\": \"add\", \"arguments\": {{\"a\": {a}, \"b\": {b}}}}}</tool_call>"
        ))
    }

    /// The conversation that begins with it.
    fn environment(self) -> Toolbox {
        Toolbox::new(vec![self.question()]).with_tool(Calculator).with_column("answer", self.answer())
    }
}

/// The tool.
struct Calculator;

impl Tool for Calculator {
    fn name(&self) -> &'static str {
        "add"
    }

    fn description(&self) -> Value {
        let number = json!({"type": "integer"});
        let parameters =
            json!({"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]});
        json!({"type": "function", "function": {"name": "add", "description": "a + b", "parameters": parameters}})
    }

    fn call(&mut self, arguments: &Map<String, Value>) -> Result<String, String> {
        let number = |name: &str| {
            arguments.get(name).and_then(Value::as_u64).ok_or_else(|| format!("`{name}` is no number"))
        };
        Ok((number("a")? + number("b")?).to_string())
    }
}

/// 1 for what the policy said last, if that is the right answer.
fn reward() -> Rewards {
    Rewards::one(each_fn("right", |rollout: &Rollout| {
        rollout.text_column("answer").is_ok_and(|answer| answer == rollout.completion)
    }))
}

/// What each conversation was worth beside the others of its problem, and the share of right answers.
fn compared(samples: Vec<Sampled>) -> Result<(Vec<Experience>, Proportion), Box<dyn Error>> {
    let rollouts: Vec<Rollout> = samples.iter().map(|sample| sample.rollout.clone()).collect();
    let values = reward().score(&rollouts)?.values();
    let rewards: Vec<Vec<Option<f64>>> = values.iter().map(|&value| vec![value]).collect();
    let groups: Vec<u64> = samples.iter().map(|sample| sample.trajectory.group).collect();
    let counts: Vec<usize> = samples.iter().map(|sample| sample.trajectory.actions()).collect();
    let advantages = AdvantageEstimator::group(AdvantageScale::Group).advantages(&ScoredGroups {
        rewards: &rewards,
        weights: &[1.0],
        groups: &groups,
        counts: &counts,
        token_rewards: None,
        greedy_scores: None,
    });
    let right = values.iter().filter(|value| value.is_some_and(|value| value > 0.5)).count();
    let right = Proportion::new(right, values.len());
    let experience = samples
        .into_iter()
        .zip(advantages.sequences)
        .map(|(sample, advantage)| Experience::new(sample.trajectory, advantage))
        .collect();
    Ok((experience, right))
}

/// What the model reads and writes.
struct World {
    tokenizer: Tokenizer,
    templates: ChatTemplates,
    render: RenderOptions,
}

impl World {
    fn new() -> Result<Self, Box<dyn Error>> {
        let tokenizer = tokenizer()?.with_chat_template(
            "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>\
             {% endgeneration %}{% else %}{{ m.content }}<end>{% endif %}{% endfor %}\
             {% if add_generation_prompt %}<assistant>{% endif %}",
        );
        let templates = ChatTemplates::from_tokenizer(&tokenizer)?;
        Ok(Self { tokenizer, templates, render: RenderOptions::default() })
    }

    /// A model that was shown conversations. The tool is used in ever fewer of them, at last in one of twelve; in the others
    /// a number is guessed.
    fn shown(&self, rng: &mut ChaCha8Rng) -> Result<Decoder, Box<dyn Error>> {
        let json = json!({
            "model_type": "llama", "vocab_size": self.tokenizer.vocab_size(), "hidden_size": 64,
            "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2,
            "max_position_embeddings": 128,
        });
        let architecture = Architecture::from_json(Path::new("config.json"), json)?;
        let model = architecture.random(rng, &Device::flex().autodiff());
        let config = SftConfig {
            batch_size: 64.try_into()?,
            micro_batch_size: 64.try_into()?,
            update: update(3e-3),
            ..SftConfig::default()
        };
        let mut trainer = SftTrainer::new(model, &config, SHOWN)?;
        for step in 0..SHOWN {
            let one_of = 1 + 12 * step / SHOWN;
            let batch: Vec<SftExample> =
                (0..64).map(|_| self.demonstration(one_of, rng)).collect::<Result<_, _>>()?;
            trainer.step(&batch[..])?;
        }
        Ok(trainer.into_model())
    }

    /// A conversation; the tool is used in one of so many.
    fn demonstration(&self, one_of: u64, rng: &mut ChaCha8Rng) -> Result<SftExample, Box<dyn Error>> {
        let problem = Problem::draw(rng, false);
        let mut messages = vec![problem.question()];
        if rng.next_u64().is_multiple_of(one_of) {
            let answer = problem.answer();
            messages.extend([problem.call(), Message::tool(answer.as_str()), Message::assistant(answer)]);
        } else {
            messages.push(Message::assistant(Problem::draw(rng, false).answer()));
        }
        let record = SftRecord::Conversation { messages, template: TemplateColumns::default() };
        let with = SftTokenizer {
            loss_on: LossOn::Assistant,
            ..SftTokenizer::new(&SftConfig::default(), &self.tokenizer, Some(&self.templates))
        };
        Ok(with.whole(&record)?.example)
    }

    /// Some conversations about each problem.
    fn converse(
        &self,
        model: &Decoder,
        problems: &[Problem],
        each: usize,
        seed: u64,
    ) -> Result<Vec<Sampled>, Box<dyn Error>> {
        let member =
            |group: usize| Member { group: group as u64, environment: problems[group].environment() };
        let members =
            (0..problems.len()).flat_map(|group| (0..each).map(move |_| group)).map(member).collect();
        let conversation = ConversationTokenizer {
            tokenizer: &self.tokenizer,
            templates: &self.templates,
            render: &self.render,
        };
        let config = EpisodeConfig {
            max_turns: 3.try_into()?,
            max_turn_tokens: 16.try_into()?,
            max_tokens: 48.try_into()?,
            stop: StopAt { tokens: self.tokenizer.eos_id().into_iter().collect(), strings: Vec::new() },
            batch_size: 200.try_into()?,
            ..EpisodeConfig::default()
        };
        let episodes = sample_episodes(model, members, &config, seed, conversation)?.episodes;
        Ok(episodes.into_iter().map(|episode| episode.sampled).collect())
    }

    /// The share of problems whose answer is right.
    fn solved(&self, model: &Decoder, problems: &[Problem]) -> Result<Proportion, Box<dyn Error>> {
        Ok(compared(self.converse(model, problems, 1, 1)?)?.1)
    }
}

fn group_config() -> GroupConfig {
    let mut config = GroupConfig::of(Algorithm::preset(Preset::Grpo));
    config.micro_batch_size = std::num::NonZeroUsize::MIN.saturating_add(63);
    config.rollout.decoding = Decoding::default();
    config.update = update(5e-4);
    config
}

fn update(rate: f64) -> UpdateConfig {
    UpdateConfig {
        learning_rate: Positive::new(rate),
        schedule: Schedule::Constant { warmup: Span::default() },
        ..UpdateConfig::default()
    }
}

/// A token a digit, and one for each fixed part of a call.
fn tokenizer() -> Result<Tokenizer, Box<dyn Error>> {
    let special = ["<unk>", "<end>", "<user>", "<assistant>", "<tool>"];
    let parts =
        ["<tool_call>", "{\"name\": \"add\", \"arguments\": {\"a\": ", ", \"b\": ", "}}", "</tool_call>"];
    let digits = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "+"];
    let pieces = special.iter().chain(&parts).chain(&digits);
    let vocab: Map<String, Value> =
        pieces.enumerate().map(|(id, &piece)| (piece.into(), id.into())).collect();
    let added = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": id < special.len()})
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": special.iter().chain(&parts).enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("tokenizer.json"), json.to_string())?;
    let config = json!({"unk_token": "<unk>", "eos_token": "<end>"});
    std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string())?;
    Ok(Tokenizer::from_directory(directory.path())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_learns_to_use_the_tool() {
        let (before, after) = run(0, |_| {}).unwrap();
        assert!(before.high < 0.2 && after.low > 0.8, "{before:?} {after:?}");
    }
}
