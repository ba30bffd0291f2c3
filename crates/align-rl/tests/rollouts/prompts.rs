//! Groups of completions.

use std::num::NonZeroUsize;

use align_model::{
    chat::Message,
    data::{PromptRecord, TemplateColumns},
    generate::Decoding,
    logprob::{CompletionLayout, Prompts, token_log_probs_under},
};
use align_reward::rollout::{FinishReason, Prompt};
use align_rl::{
    prompted,
    rollout::{
        LongPrompt, PromptError, PromptExample, PromptLimit, PromptTokenizer, RolloutConfig, RolloutError,
        WhyLeftOut, sample_rollouts,
    },
    sampling_distribution,
};
use serde_json::{Map, Value, json};

use crate::world::{CONTEXT, END, World, filtered, stop};

fn example(tokens: Vec<u32>) -> PromptExample {
    let text = format!("{} tokens", tokens.len());
    let columns = json!({"length": tokens.len()}).as_object().unwrap().clone();
    PromptExample { prompt: Prompt::Text(text), tokens, columns }
}

fn config() -> RolloutConfig {
    RolloutConfig {
        samples: NonZeroUsize::new(3).unwrap(),
        max_new_tokens: NonZeroUsize::new(20).unwrap(),
        stop: stop(),
        ..RolloutConfig::default()
    }
}

#[test]
fn groups_come_in_order_and_prompts_without_room_are_counted() {
    let world = World::new();
    let lengths = [4, 0, CONTEXT, 30, CONTEXT - 2];
    let prompts: Vec<_> =
        lengths.map(|length| example((0..length).map(|i| i as u32 % 10 + 5).collect())).into();
    let rollouts = sample_rollouts(&world.model, &prompts, &config(), 1, Some(&world.tokenizer)).unwrap();
    let why: Vec<_> = rollouts.left_out.iter().map(|it| (it.prompt, it.why)).collect();
    let full = WhyLeftOut::FillsContext { tokens: CONTEXT, limit: CONTEXT };
    assert_eq!(why, [(1, WhyLeftOut::Empty), (2, full)]);
    let groups: Vec<u64> = rollouts.samples.iter().map(|sample| sample.trajectory.group).collect();
    assert_eq!(groups, [0, 0, 0, 3, 3, 3, 4, 4, 4]);
    for sample in &rollouts.samples {
        let (trajectory, rollout) = (&sample.trajectory, &sample.rollout);
        let prompt = &prompts[trajectory.group as usize];
        assert_eq!((&trajectory.prompt, &rollout.prompt), (&prompt.tokens, &prompt.prompt));
        assert_eq!(rollout.columns, prompt.columns);
        assert_eq!(rollout.tokens.as_ref(), Some(&trajectory.tokens));
        assert_eq!(trajectory.actions(), trajectory.tokens.len());
        let ended = trajectory.tokens.last() == Some(&END);
        assert_eq!(trajectory.finish, if ended { FinishReason::Stop } else { FinishReason::Length });
        assert!(!rollout.completion.contains("<|end|>"));
    }
    assert!(rollouts.samples[6..].iter().all(|sample| sample.trajectory.tokens.len() <= 2));
    let counts = rollouts.counts();
    assert_eq!((counts.samples, counts.left_out_prompts, counts.cut_prompts), (9, 2, 0));
    assert_eq!(counts.truncated, rollouts.samples.iter().filter(|s| s.trajectory.is_truncated()).count());
    let numbered = rollouts.clone().numbered_from(10);
    assert_eq!(numbered.samples[3].rollout.group, 13);
    // What becomes of a prompt depends on its place alone.
    let mut others = prompts.clone();
    others[0] = example(vec![7; 50]);
    let again = sample_rollouts(&world.model, &others, &config(), 1, Some(&world.tokenizer)).unwrap();
    for (again, before) in again.samples[3..].iter().zip(&rollouts.samples[3..]) {
        assert_eq!(again.trajectory.tokens, before.trajectory.tokens);
    }
}

#[test]
fn long_prompts_are_left_out_or_lose_their_beginning() {
    let world = World::new();
    let prompts = [example(vec![5, 6, 7]), example(vec![5, 6, 7, 8, 9])];
    let limited = |on_too_long| {
        let limit = PromptLimit { tokens: NonZeroUsize::new(3).unwrap(), on_too_long };
        let config = RolloutConfig { prompt_limit: Some(limit), ..config() };
        sample_rollouts(&world.model, &prompts, &config, 1, None).unwrap()
    };
    let left_out = limited(LongPrompt::LeaveOut);
    assert_eq!(left_out.left_out[0].why, WhyLeftOut::TooLong { tokens: 5, limit: 3 });
    let cut = limited(LongPrompt::KeepEnd);
    assert_eq!((cut.cut_prompts, cut.samples.len()), (1, 6));
    assert_eq!(cut.samples[3].trajectory.prompt, [7, 8, 9]);
    // Without a tokenizer the text is the tokens' numbers.
    let trajectory = &cut.samples[0].trajectory;
    let text = trajectory.tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(cut.samples[0].rollout.completion, text);
}

#[test]
fn filtered_samples_are_scored_as_they_were_drawn() {
    let world = World::new();
    let prompts = [example(vec![5, 6]), example(vec![9, 8, 7, 6])];
    for decoding in [filtered(), Decoding::default()] {
        let config = RolloutConfig { decoding, ..config() };
        let samples = sample_rollouts(&world.model, &prompts, &config, 3, None).unwrap().samples;
        let trajectories: Vec<_> = samples.iter().map(|sample| &sample.trajectory).collect();
        let layout = CompletionLayout::new(
            &prompted(trajectories.iter().copied()),
            Prompts { are_shared: true, are_read: false },
        );
        let distribution = sampling_distribution(trajectories.iter().copied(), config.temperature());
        assert_eq!(distribution.supports.is_some(), config.decoding != Decoding::default());
        let scored = token_log_probs_under(&world.model, &layout.batch, &layout.targets, distribution);
        let scored: Vec<f32> = scored.values.into_data().iter().collect();
        let drawn = trajectories.iter().flat_map(|it| &it.sampling_log_probs);
        assert!(scored.iter().zip(drawn).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn a_token_of_another_model_is_named_with_its_prompt() {
    let world = World::new();
    let prompts = [example(vec![]), example(vec![5]), example(vec![5, 900])];
    let error = sample_rollouts(&world.model, &prompts, &config(), 3, None).unwrap_err();
    let RolloutError::Generate(source) = error else { panic!("{error}") };
    assert!(source.to_string().contains("prompt 2 has token 900"), "{source}");
}

#[test]
fn records_become_prompts() {
    let world = World::new();
    let with = PromptTokenizer {
        tokenizer: &world.tokenizer,
        templates: Some(&world.templates),
        render: &world.render,
    };
    let read = |record: &PromptRecord| with.example(record, Map::new()).unwrap();
    let text = read(&PromptRecord::Text { prompt: "abc".into() });
    assert_eq!((text.prompt, text.tokens), (Prompt::Text("abc".into()), vec![5, 6, 7]));
    let chat = |messages: &[Message], kwargs: Value| PromptRecord::Chat {
        prompt: messages.to_vec(),
        template: TemplateColumns { tools: None, chat_template_kwargs: kwargs.as_object().unwrap().clone() },
    };
    let asked = read(&chat(&[Message::user("ab")], json!({})));
    assert_eq!(asked.tokens, [2, 5, 6, 1, 14, 3]);
    let begun = read(&chat(&[Message::user("a"), Message::assistant("b")], json!({})));
    assert_eq!(begun.tokens, [2, 5, 1, 14, 3, 6], "the model goes on with what the assistant began to say");
    let refused = with.example(&chat(&[Message::user("a")], json!({"tools": 1})), Map::new()).unwrap_err();
    assert!(matches!(refused, PromptError::ReservedVariable { key } if key == "tools"));
    let without = PromptTokenizer { templates: None, ..with };
    let refused = without.example(&chat(&[Message::user("a")], json!({})), Map::new()).unwrap_err();
    assert!(matches!(refused, PromptError::NoTemplate));
}
