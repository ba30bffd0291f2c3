//! Pairs that the policy writes itself.

use align_model::{
    causal_lm::TokenBatch,
    decoder::Decoder,
    generate::{Decoding, Sampling, StopAt},
    logprob::{Targets, token_log_probs},
    number::{NonNegative, Positive, UnitInterval},
    train::Step,
};
use align_reward::{
    function::{batch_fn, each_fn},
    judge::{Comparison, JudgeError, PairwiseJudge, Verdict, judge_fn},
    rollout::Rollout,
    score::Score,
};
use align_rl::{
    Rewards, RlConfigError, RlReport,
    online::{
        Feedback, OnlineConfig, OnlineError, OnlineObjective, OnlinePairLoss, OnlinePreferenceTrainer, Ties,
    },
    rollout::{PromptExample, RolloutConfig, RolloutRow},
};
use burn::module::Module;

use crate::world::{
    assert_resumes, assert_same_metrics, load, policy, prompt, prompts, rollout, smallness, update, weights,
};

type Trainer = OnlinePreferenceTrainer<Decoder>;

fn beta() -> Positive {
    Positive::new(0.1)
}

fn objectives() -> [OnlineObjective; 4] {
    [
        OnlineObjective::OnlineDpo { loss: OnlinePairLoss::Sigmoid, beta: beta() },
        OnlineObjective::OnlineDpo { loss: OnlinePairLoss::Ipo, beta: beta() },
        OnlineObjective::NashMd { beta: NonNegative::new(0.05), mixture_coefficient: UnitInterval::new(0.5) },
        OnlineObjective::Xpo { loss: OnlinePairLoss::Sigmoid, beta: beta(), alpha: NonNegative::new(1e-3) },
    ]
}

fn config(objective: OnlineObjective) -> OnlineConfig {
    OnlineConfig { rollout: rollout(2, 8), update: update(1e-3), ..OnlineConfig::of(objective) }
}

/// Prefers completions of small tokens.
fn by_smallness() -> Feedback {
    Feedback::judge(judge_fn("small", |pair: &Comparison| {
        Verdict::from(1.0 / (1.0 + (-8.0 * (smallness(&pair.a) - smallness(&pair.b))).exp()))
    }))
}

fn rewards() -> Feedback {
    Feedback::Rewards(Rewards::one(each_fn("small", smallness)))
}

fn trainer(feedback: Feedback, config: &OnlineConfig) -> Trainer {
    let reference = policy().valid();
    OnlinePreferenceTrainer::new(policy(), reference, feedback, None, config, 100).unwrap()
}

fn step(feedback: Feedback, config: &OnlineConfig) -> (Result<RlReport, OnlineError>, bool) {
    let mut trainer = trainer(feedback, config);
    let report = trainer.step(prompts(4).as_slice());
    (report, weights(trainer.model()) != weights(&policy()))
}

#[test]
fn a_first_step_is_that_of_a_policy_which_is_its_reference() {
    let (report, has_learnt) = step(rewards(), &config(objectives()[0]));
    let report = report.unwrap();
    assert!(has_learnt && (report.loss() - std::f64::consts::LN_2).abs() < 1e-6, "{}", report.loss());
    assert!(report.get("objective/kl").unwrap().abs() < 1e-4);
    assert!(report.get("rewards/margins").unwrap().abs() < 1e-4);
    let scores = report.get("objective/scores").unwrap();
    assert!((report.get("objective/rlhf_reward").unwrap() - scores).abs() < 1e-4);
    assert_eq!(report.get("val/contain_eos_token"), Some(0.0));
    assert_eq!(report.get("num_tokens"), Some(2.0 * (3.0 + 4.0 + 5.0 + 6.0) + 64.0));
    let mean: f64 = report.rollouts.iter().filter_map(|row| row.reward).sum::<f64>() / 8.0;
    assert!(report.rollouts.iter().all(|row| row.scores.get("small") == row.reward.as_ref()));
    assert_eq!(report.get("reward"), Some(scores));
    assert_eq!(report.rollouts.len(), 8);
    assert!((mean - scores).abs() < 1e-12);

    let (report, _) = step(rewards(), &config(objectives()[1]));
    assert!((report.unwrap().loss() - 25.0).abs() < 1e-2, "IPO wants a margin of 1/(2β)");

    let (report, _) = step(rewards(), &config(objectives()[2]));
    let report = report.unwrap();
    assert!((report.loss() + report.get("loss/score").unwrap()).abs() < 1e-4, "{}", report.loss());
    assert!(report.get("loss/kl").unwrap().abs() < 1e-4);

    let (report, _) = step(rewards(), &config(objectives()[3]));
    let report = report.unwrap();
    let bonus = report.get("loss/xpo").unwrap();
    assert!(bonus < 0.0 && (report.loss() - std::f64::consts::LN_2 - bonus).abs() < 1e-5);
}

#[test]
fn a_step_is_the_same_however_it_is_cut() {
    for objective in objectives() {
        let run = |micro: usize| {
            let config = OnlineConfig { micro_batch_size: micro.try_into().unwrap(), ..config(objective) };
            let mut trainer = trainer(rewards(), &OnlineConfig { rollout: rollout(4, 8), ..config });
            let report = trainer.step(prompts(4).as_slice()).unwrap();
            (report, weights(trainer.model()))
        };
        let ((whole, a), (parts, b)) = (run(8), run(1));
        assert_same_metrics(&whole, &parts);
        // Adam's first update is the sign of each gradient times the rate: near 0 rounding decides.
        let differing = a.iter().zip(&b).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
        assert!(differing * 200 < a.len(), "{objective:?}: {differing} of {}", a.len());
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let run = |seed| {
        let mut trainer = trainer(by_smallness(), &OnlineConfig { seed, ..config(objectives()[0]) });
        (0..2).map(|_| trainer.step(prompts(4).as_slice()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1)[0].rollouts, run(2)[0].rollouts);
    let two = run(1);
    assert_ne!(two[0].rollouts[0].completion, two[1].rollouts[0].completion, "every step samples anew");
}

#[test]
fn a_resumed_run_has_the_same_bits() {
    let batches: Vec<Vec<PromptExample>> = (0..4).map(|i| prompts(3 + i)).collect();
    for objective in objectives() {
        for feedback in [by_smallness as fn() -> Feedback, rewards] {
            let new = || trainer(feedback(), &config(objective));
            assert_resumes(new, &batches, |trainer| weights(trainer.model()));
        }
    }
}

#[test]
fn what_a_judge_leaves_open_is_counted_and_not_learnt() {
    let open = || {
        let mut asked = 0;
        Feedback::judge(judge_fn("open", move |_: &Comparison| {
            asked += 1;
            match asked {
                1 => Verdict::Preference(0.5),
                2 => Verdict::unjudged("no idea"),
                3 => Verdict::from(f64::NAN),
                _ => Verdict::Preference(0.9),
            }
        }))
    };
    let (report, _) = step(open(), &config(objectives()[0]));
    let report = report.unwrap();
    let counts = ["pairs/learnt", "pairs/ties", "pairs/unjudged"].map(|name| report.get(name).unwrap());
    assert_eq!(counts, [1.0, 1.0, 2.0]);
    let (report, _) = step(open(), &OnlineConfig { ties: Ties::FirstWins, ..config(objectives()[0]) });
    assert_eq!(report.unwrap().get("pairs/learnt"), Some(2.0));
    let (report, _) = step(open(), &config(objectives()[2]));
    assert_eq!(report.unwrap().get("pairs/learnt"), Some(2.0), "to Nash-MD a tie is an answer");
}

#[test]
fn a_step_of_ties_leaves_the_weights_alone() {
    let tie = || Feedback::judge(judge_fn("tie", |_: &Comparison| Verdict::Preference(0.5)));
    let (report, has_learnt) = step(tie(), &config(objectives()[0]));
    let report = report.unwrap();
    assert!(!has_learnt);
    assert_eq!((report.get("loss"), report.get("pairs/ties")), (None, Some(4.0)));
}

#[test]
fn equal_completions_are_no_question() {
    let one_token =
        RolloutConfig { stop: StopAt { tokens: (0..256).collect(), ..StopAt::default() }, ..rollout(2, 1) };
    let sure = Positive::new(0.01);
    let decoding = Decoding::Sample(Sampling { temperature: sure, ..Sampling::default() });
    let config = OnlineConfig { rollout: RolloutConfig { decoding, ..one_token }, ..config(objectives()[0]) };
    let never = Feedback::judge(judge_fn("never", |pair: &Comparison| {
        assert_ne!(pair.a.tokens, pair.b.tokens);
        Verdict::Preference(1.0)
    }));
    let (report, _) = step(never, &config);
    let report = report.unwrap();
    assert!(report.get("pairs/identical").unwrap() >= 3.0);
    assert_eq!(report.get("val/contain_eos_token"), Some(1.0));
}

struct Short;

impl PairwiseJudge for Short {
    fn name(&self) -> &'static str {
        "short"
    }

    fn judge(&mut self, _: &[Comparison]) -> Result<Vec<Verdict>, JudgeError> {
        Ok(vec![Verdict::Preference(1.0)])
    }
}

#[test]
fn failures_are_typed_and_leave_the_weights_alone() {
    let of = |feedback| {
        let (report, has_learnt) = step(feedback, &config(objectives()[0]));
        assert!(!has_learnt);
        report.unwrap_err()
    };
    let panics = Feedback::judge(judge_fn("bad", |_: &Comparison| panic!("oh")));
    assert!(matches!(of(panics), OnlineError::Judge(JudgeError::Panicked { .. })));
    assert!(matches!(of(Feedback::judge(Short)), OnlineError::Judge(JudgeError::WrongCount { .. })));
    let silent = Feedback::judge(judge_fn("silent", |_: &Comparison| Verdict::unjudged("asleep")));
    let error = of(silent);
    assert_eq!(error.to_string(), "none of 4 pairs was judged, the first because: asleep");
    let nan = Feedback::Rewards(Rewards::one(each_fn("nan", |_: &Rollout| f64::NAN)));
    assert!(matches!(of(nan), OnlineError::NothingJudged { pairs: 4, .. }));
    let short = Feedback::Rewards(Rewards::one(batch_fn("short", |_| Ok(vec![Score::Value(1.0)]))));
    assert!(matches!(of(short), OnlineError::Reward(_)));
    let mut trainer = trainer(rewards(), &config(objectives()[0]));
    let nothing: &[PromptExample] = &[];
    assert!(matches!(trainer.step(nothing), Err(OnlineError::EmptyBatch)));
}

#[test]
fn prompts_without_room_are_counted_and_a_batch_of_them_is_an_error() {
    for objective in objectives() {
        let mut trainer = trainer(rewards(), &config(objective));
        let full = prompt(&vec![5; 256]);
        let report = trainer.step([full.clone(), prompt(&[3, 4]), prompt(&[])].as_slice()).unwrap();
        assert_eq!(report.get("prompts/left_out"), Some(2.0));
        assert!(report.rollouts.iter().all(|row| row.group == 1));
        let error = trainer.step([full].as_slice()).unwrap_err();
        assert!(matches!(error, OnlineError::NothingWritten { prompts: 1, .. }), "{error}");
    }
}

#[test]
fn a_missing_end_costs_its_penalty() {
    let config = OnlineConfig { missing_end_penalty: Some(Positive::new(7.0)), ..config(objectives()[0]) };
    let (report, _) = step(rewards(), &config);
    let scores = report.unwrap().get("objective/scores").unwrap();
    assert!((-7.0..=-6.0).contains(&scores), "{scores}");
}

#[test]
fn a_policy_gradient_is_under_the_distribution_of_the_samples() {
    let sampling =
        Sampling { temperature: Positive::new(0.7), top_k: 2.try_into().ok(), ..Sampling::default() };
    let rollout = RolloutConfig { decoding: Decoding::Sample(sampling), ..rollout(2, 8) };
    let log_prob = |objective| {
        let config = OnlineConfig { rollout: rollout.clone(), ..config(objective) };
        let (report, has_learnt) = step(rewards(), &config);
        assert!(has_learnt);
        report.unwrap().get("logps/chosen").unwrap()
    };
    // Eight draws between two tokens each, of which the likelier one is drawn more often.
    assert!(log_prob(objectives()[2]) > -8.0 * 0.7, "{}", log_prob(objectives()[2]));
    assert!(
        log_prob(objectives()[0]) < -8.0 * 2.0,
        "pairs are learnt from under the model's own distribution"
    );
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let refused = |change: &dyn Fn(&mut OnlineConfig)| {
        let mut config = config(objectives()[0]);
        change(&mut config);
        let error =
            OnlinePreferenceTrainer::new(policy(), policy(), by_smallness(), None, &config, 10).unwrap_err();
        match error {
            RlConfigError::Setting { key, .. } => key.to_owned(),
            other => other.to_string(),
        }
    };
    assert_eq!(refused(&|c| c.rollout = rollout(3, 8)), "rollout.samples");
    assert_eq!(refused(&|c| c.rollout.decoding = Decoding::Greedy), "rollout.decoding");
    assert_eq!(refused(&|c| c.missing_end_penalty = Some(Positive::new(1.0))), "missing_end_penalty");
    let nash = objectives()[2];
    assert_eq!(refused(&|c| (c.objective, c.ties) = (nash, Ties::FirstWins)), "ties");
    assert_eq!(refused(&|c| c.micro_batch_size = 9.try_into().unwrap()), "micro_batch_size");
    let error = OnlinePreferenceTrainer::new(policy(), load("tiny/model"), rewards(), None, &config(nash), 1);
    assert!(error.unwrap_err().to_string().contains("512 tokens and the policy 256"));
    let text = "objective = { kind = \"nash_md\", mixture_coefficient = 0.25 }\nties = \"leave_out\"";
    let read: OnlineConfig = toml::from_str(text).unwrap();
    assert!(
        matches!(read.objective, OnlineObjective::NashMd { mixture_coefficient, .. } if mixture_coefficient.get() == 0.25)
    );
    assert_eq!(toml::from_str::<OnlineConfig>("").unwrap(), OnlineConfig::default());
    assert!(toml::from_str::<OnlineConfig>("objective = { kind = \"nash_md\", alpha = 1.0 }").is_err());
}

#[test]
fn a_policy_wins_more_and_more_often() {
    let held_out = prompts(24).split_off(8);
    for (objective, least) in objectives().into_iter().zip([0.8, 0.7, 0.7, 0.8]) {
        let config = OnlineConfig { rollout: rollout(4, 8), update: update(3e-3), ..config(objective) };
        let mut trainer = trainer(by_smallness(), &config);
        let before =
            trainer.evaluate(&policy(), &held_out, &mut by_smallness()).unwrap().get("win_rate").unwrap();
        assert!((before - 0.5).abs() < 0.15, "against itself: {before}");
        for _ in 0..60 {
            trainer.step(prompts(8).as_slice()).unwrap();
        }
        let model = trainer.model().clone();
        let found = trainer.evaluate(&model, &held_out, &mut by_smallness()).unwrap();
        let after = found.get("win_rate").unwrap();
        assert!(after > least, "{objective:?}: {after}");
        let margin = found.get("win_rate_margin").unwrap();
        assert!((0.0..0.3).contains(&margin), "{objective:?}: {margin}");
        assert!((0.5..after).contains(&found.get("preference").unwrap()), "{objective:?}");
        assert_eq!(found.get("reward"), None, "a judge gives none");
        // Rewards are told of the policy alone, which is better than what it meets.
        let found = trainer.evaluate(&model, &held_out, &mut rewards()).unwrap();
        let untrained = trainer.evaluate(&policy(), &held_out, &mut rewards()).unwrap();
        let [reward, before] = [&found, &untrained].map(|report| report.get("reward").unwrap());
        assert!(reward > before + 0.1, "{objective:?}: {before} {reward}");
        assert!(untrained.get("reward_margin").unwrap() > 0.0 && found.get("win_rate").unwrap() > 0.5);
        let by_name = found.get("rewards/small/mean").unwrap();
        assert!((by_name - reward).abs() < 1e-12, "every prompt has as many completions");
    }
}

/// The sum of a completion's log-probabilities, and its terms.
fn log_probs(model: &Decoder, prompt: &[u32], completion: &[u32]) -> Vec<f64> {
    let whole = [prompt, completion].concat();
    let marks: Vec<bool> = (0..whole.len()).map(|at| at >= prompt.len()).collect();
    let batch = TokenBatch::from_sequences(&[whole]);
    let scored = token_log_probs(model, &batch, &Targets::selected(&batch, &marks));
    scored.values.into_data().iter::<f64>().collect()
}

/// A step's loss from what it reports, pair by pair and in double precision.
fn naive_loss(
    objective: &OnlineObjective,
    policy: &Decoder,
    rows: &[RolloutRow],
    batch: &[PromptExample],
) -> f64 {
    let reference = crate::world::policy();
    let losses = rows.chunks(2).map(|pair| {
        let of = |model: &Decoder, side: usize| {
            let row = &pair[side];
            let tokens: Vec<u32> = row.completion.split(' ').map(|token| token.parse().unwrap()).collect();
            log_probs(model, &batch[row.group as usize].tokens, &tokens)
        };
        let sum = |model, side| of(model, side).iter().sum::<f64>();
        let preference = pair[0].scores["preferred"];
        let margin = (sum(policy, 0) - sum(&reference, 0)) - (sum(policy, 1) - sum(&reference, 1));
        let margin = if preference > 0.5 { margin } else { -margin };
        let of_pair = |loss: OnlinePairLoss, beta: f64| match loss {
            OnlinePairLoss::Sigmoid => (-beta * margin).exp().ln_1p(),
            OnlinePairLoss::Ipo => (margin - 0.5 / beta).powi(2),
        };
        match *objective {
            OnlineObjective::OnlineDpo { loss, beta } => of_pair(loss, beta.get()),
            OnlineObjective::Xpo { loss, beta, alpha } => {
                of_pair(loss, beta.get()) + alpha.get() * sum(policy, 1)
            }
            OnlineObjective::NashMd { beta, .. } => {
                let tokens = of(policy, 0).into_iter().zip(of(&reference, 0));
                tokens.map(|(own, other)| own * (beta.get() * (own - other) - (preference - 0.5))).sum()
            }
        }
    });
    losses.sum::<f64>() / (rows.len() / 2) as f64
}

#[test]
fn losses_are_those_of_their_formulas_on_what_was_written() {
    for objective in objectives() {
        let config = OnlineConfig {
            rollout: rollout(4, 8),
            micro_batch_size: 3.try_into().unwrap(),
            ..config(objective)
        };
        // No two completions are equally good.
        let sure = Feedback::judge(judge_fn("sure", |pair: &Comparison| {
            let sum = |rollout: &Rollout| rollout.tokens.as_ref().unwrap().iter().sum::<u32>();
            Verdict::Preference(if sum(&pair.a) < sum(&pair.b) { 0.9 } else { 0.2 })
        }));
        let mut trainer = trainer(sure, &config);
        for _ in 0..3 {
            trainer.step(prompts(4).as_slice()).unwrap();
        }
        let before = trainer.model().valid();
        let report = trainer.step(prompts(4).as_slice()).unwrap();
        assert_eq!(report.get("pairs/learnt"), Some(8.0));
        let expected = naive_loss(&objective, &before, &report.rollouts, &prompts(4));
        assert!(
            (report.loss() - expected).abs() < 1e-4 * expected.abs() + 1e-4,
            "{objective:?}: {} {expected}",
            report.loss()
        );
    }
}
