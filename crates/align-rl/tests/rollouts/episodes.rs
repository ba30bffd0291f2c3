//! Conversations of many turns.

use std::num::NonZeroUsize;

use align_model::{
    chat::{Message, RenderOptions},
    generate::Decoding,
    logprob::{CompletionLayout, Prompts, token_log_probs_under},
    number::Positive,
    tokenizer::SpecialTokenText,
};
use align_reward::{
    rollout::{FinishReason, Prompt},
    score::Score,
};
use align_rl::{
    environment::{
        Environment, Episode, EpisodeConfig, EpisodeEnd, EpisodeError, Episodes, Member, Reply, Tool,
        ToolCallFormat, Toolbox, TranscriptError, Turn, sample_episodes,
    },
    prompted,
    rollout::WhyLeftOut,
    sampling_distribution,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::world::{CONTEXT, END, FORGETFUL, World, filtered, stop};

/// Says what it was told, so many times, and then that it was worth something.
struct Echo {
    opening: String,
    turns: usize,
}

impl Environment for Echo {
    fn opening(&self) -> Vec<Message> {
        vec![Message::user(self.opening.as_str())]
    }

    fn columns(&self) -> Map<String, Value> {
        json!({"turns": self.turns}).as_object().unwrap().clone()
    }

    fn respond(&mut self, turn: &Turn) -> Result<Reply, String> {
        self.turns -= 1;
        if self.turns == 0 {
            return Ok(Reply::Done { score: Some(Score::Value(turn.text.len() as f64)) });
        }
        Ok(Reply::Continue(vec![Message::tool("hh"), Message::tool("g")]))
    }
}

fn members(turns: &[usize]) -> Vec<Member<Echo>> {
    let member = |(group, &turns): (usize, &usize)| Member {
        group: group as u64,
        environment: Echo { opening: "abcdefgh".chars().skip(group % 8).collect(), turns },
    };
    turns.iter().enumerate().map(member).collect()
}

fn config() -> EpisodeConfig {
    EpisodeConfig {
        max_turn_tokens: NonZeroUsize::new(30).unwrap(),
        max_tokens: NonZeroUsize::new(120).unwrap(),
        stop: stop(),
        tool_calls: ToolCallFormat::Json,
        ..EpisodeConfig::default()
    }
}

fn sample<E: Environment>(members: Vec<Member<E>>, config: &EpisodeConfig, seed: u64) -> Episodes {
    let world = World::new();
    sample_episodes(&world.model, members, config, seed, world.conversation()).unwrap()
}

/// That the policy was given exactly the tokens that the trajectory has, and that those are the conversation.
fn check(world: &World, episode: &Episode) {
    let (trajectory, rollout) = (&episode.sampled.trajectory, &episode.sampled.rollout);
    let actions = trajectory.is_action.iter().filter(|is_action| **is_action).count();
    assert_eq!((trajectory.tokens.len(), trajectory.actions()), (trajectory.is_action.len(), actions));
    // Scored in one pass over the whole, each action has the probability with which it was sampled turn by turn.
    let items = prompted([trajectory]);
    let layout = CompletionLayout::new(&items, Prompts { are_shared: true, are_read: false });
    let distribution = sampling_distribution([trajectory], Positive::new(1.0));
    let scored = token_log_probs_under(&world.model, &layout.batch, &layout.targets, distribution);
    let scored: Vec<f32> = scored.values.into_data().iter().collect();
    assert_eq!(scored.len(), actions);
    assert!(scored.iter().zip(&trajectory.sampling_log_probs).all(|(a, b)| (a - b).abs() < 1e-4));
    // The tokens are the rendered conversation and the last turn.
    let Prompt::Messages(before) = &rollout.prompt else { panic!("a conversation") };
    let rendered = world.templates.render(before, None, &RenderOptions::prompt()).unwrap().text;
    let last = world.tokenizer.decode(rollout.tokens.as_ref().unwrap(), SpecialTokenText::Keep).unwrap();
    let whole = [&trajectory.prompt[..], &trajectory.tokens].concat();
    assert_eq!(world.tokenizer.decode(&whole, SpecialTokenText::Keep).unwrap(), rendered + &last);
    assert_eq!(before.iter().filter(|message| message.role() == "assistant").count() + 1, episode.turns);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_trajectory_is_what_the_model_was_given(
        turns in prop::collection::vec(1usize..6, 1..5), seed in 0u64..10_000, is_filtered in any::<bool>()
    ) {
        let world = World::new();
        let decoding = if is_filtered { filtered() } else { Decoding::default() };
        let config = EpisodeConfig { decoding, ..config() };
        let episodes =
            sample_episodes(&world.model, members(&turns), &config, seed, world.conversation()).unwrap();
        prop_assert_eq!(episodes.episodes.len(), turns.len());
        for (episode, &turns) in episodes.episodes.iter().zip(&turns) {
            check(&world, episode);
            prop_assert_eq!(episode.sampled.trajectory.supports.is_some(), is_filtered);
            prop_assert_eq!(&episode.sampled.rollout.columns["turns"], turns);
            match episode.end {
                EpisodeEnd::Done => {
                    prop_assert_eq!(episode.turns, turns);
                    prop_assert!(episode.score.is_some());
                    prop_assert_eq!(episode.sampled.trajectory.tokens.last(), Some(&END));
                }
                _ => prop_assert!(episode.sampled.trajectory.is_truncated() && episode.score.is_none()),
            }
        }
        // The first goes its way whatever the others do.
        let alone = sample_episodes(
            &world.model, members(&turns[..1]), &config, seed, world.conversation()
        ).unwrap();
        let tokens = |episodes: &Episodes| episodes.episodes[0].sampled.trajectory.tokens.clone();
        prop_assert_eq!(tokens(&alone), tokens(&episodes));
    }
}

#[test]
fn budgets_end_a_conversation() {
    let two = EpisodeConfig { max_turns: NonZeroUsize::new(2).unwrap(), ..config() };
    let ends = |config: &EpisodeConfig| -> Vec<_> {
        let episodes = sample(members(&[9; 12]), config, 5);
        episodes.episodes.into_iter().map(|episode| (episode.end.clone(), episode)).collect()
    };
    let ended = ends(&two);
    assert!(ended.iter().any(|(end, _)| *end == EpisodeEnd::Turns));
    for (end, episode) in &ended {
        assert_eq!(episode.sampled.trajectory.finish, FinishReason::Length);
        assert!(*end == EpisodeEnd::Tokens || episode.turns == 2);
    }
    let short = EpisodeConfig { max_tokens: NonZeroUsize::new(25).unwrap(), ..config() };
    for (end, episode) in ends(&short) {
        assert_eq!(end, EpisodeEnd::Tokens);
        assert!(episode.sampled.trajectory.tokens.len() <= 25);
        assert_eq!(episode.sampled.trajectory.is_action.last(), Some(&true), "nothing is told for no turn");
    }
}

#[test]
fn the_models_context_ends_a_conversation_or_leaves_it_out() {
    let member =
        |opening: usize| Member { group: 0, environment: Echo { opening: "a".repeat(opening), turns: 9 } };
    let episodes = sample(vec![member(CONTEXT), member(CONTEXT - 20)], &config(), 1);
    assert_eq!(episodes.left_out[0].prompt, 0);
    assert!(matches!(episodes.left_out[0].why, WhyLeftOut::FillsContext { limit: CONTEXT, .. }));
    let [episode] = &episodes.episodes[..] else { panic!("one conversation") };
    assert_eq!(episode.end, EpisodeEnd::Tokens);
    let trajectory = &episode.sampled.trajectory;
    assert!(trajectory.prompt.len() + trajectory.tokens.len() <= CONTEXT);
    assert_eq!(episodes.counts().left_out, 1);
}

/// Fails in the way that its number says.
struct Broken(u8);

impl Environment for Broken {
    fn opening(&self) -> Vec<Message> {
        vec![Message::user("a")]
    }

    fn respond(&mut self, _turn: &Turn) -> Result<Reply, String> {
        match self.0 {
            0 => Err("the server is gone".into()),
            1 => panic!("out of order"),
            _ => Ok(Reply::Done { score: None }),
        }
    }
}

#[test]
fn an_environment_that_fails_ends_its_own_episode_alone() {
    let members: Vec<_> = (0..24).map(|i| Member { group: 0, environment: Broken(i % 3) }).collect();
    let episodes = sample(members, &config(), 2);
    let mut seen = [0; 3];
    for (index, episode) in episodes.episodes.iter().enumerate() {
        let expected = match index % 3 {
            _ if episode.end == EpisodeEnd::Tokens => continue,
            0 => EpisodeEnd::Failed { reason: "the server is gone".into() },
            1 => EpisodeEnd::Failed { reason: "the environment panicked".into() },
            _ => EpisodeEnd::Done,
        };
        assert_eq!(episode.end, expected);
        seen[index % 3] += 1;
    }
    assert!(seen.iter().all(|&seen| seen > 0), "{seen:?}");
    assert_eq!(episodes.counts().failed, seen[0] + seen[1]);
}

#[test]
fn calls_that_cannot_be_read_are_counted_and_answered() {
    // Every turn that has the letter a has an attempt at a call, and no letters make JSON.
    let tool_calls = ToolCallFormat::Tagged { open: "a".into(), close: "b".into() };
    let episodes = sample(members(&[3; 12]), &EpisodeConfig { tool_calls, ..config() }, 3);
    let counts = episodes.counts();
    assert!(counts.malformed_calls > 0 && counts.calls == 0);
    let answered = episodes.episodes.iter().flat_map(|episode| match &episode.sampled.rollout.prompt {
        Prompt::Messages(messages) => messages.clone(),
        Prompt::Text(_) => Vec::new(),
    });
    assert!(answered.filter(|m| m.text().starts_with("error: this tool call cannot be read (")).count() > 0);
}

#[test]
fn a_template_that_rewrites_history_is_refused() {
    let world = World::with_template(FORGETFUL);
    let error =
        sample_episodes(&world.model, members(&[5; 8]), &config(), 1, world.conversation()).unwrap_err();
    let EpisodeError::Transcript { source, .. } = error else { panic!("{error}") };
    assert!(matches!(source, TranscriptError::NotAppendOnly { turn: 1, .. }), "{source}");
    assert!(source.to_string().contains("use a template"), "{source}");
}

#[test]
fn turns_that_nothing_ends_are_refused() {
    let world = World::new();
    let config = EpisodeConfig::default();
    let error = sample_episodes(&world.model, members(&[1]), &config, 1, world.conversation()).unwrap_err();
    assert!(matches!(error, EpisodeError::NothingEndsATurn));
}

struct Double;

impl Tool for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn description(&self) -> Value {
        json!({"type": "function", "function": {"name": "double"}})
    }

    fn call(&mut self, arguments: &Map<String, Value>) -> Result<String, String> {
        let x = arguments.get("x").and_then(Value::as_i64).ok_or("`x` must be an integer")?;
        Ok((2 * x).to_string())
    }
}

#[test]
fn a_toolbox_answers_every_call() {
    let mut toolbox = Toolbox::new(vec![Message::user("?")]).with_tool(Double).with_column("answer", 4);
    assert_eq!((toolbox.tools().len(), &toolbox.columns()["answer"]), (1, &json!(4)));
    let mut said = |text: &str| toolbox.respond(&ToolCallFormat::Json.read(text)).unwrap();
    let calls = r#"[{"name": "double", "arguments": {"x": 2}}, {"name": "double"}, {"name": "halve"}]"#;
    let Reply::Continue(messages) = said(calls) else { panic!("calls are answered") };
    let texts: Vec<String> = messages.iter().map(Message::text).collect();
    let unknown = "error: there is no tool `halve`; there are: double";
    assert_eq!(texts, ["4", "error: `x` must be an integer", unknown]);
    assert_eq!((messages[0].role(), messages[0].name()), ("tool", Some("double")));
    assert_eq!(said("It is 4."), Reply::Done { score: None });
}
