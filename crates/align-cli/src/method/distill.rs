//! Learning from a teacher: generalised knowledge distillation, on-policy distillation.

mod record;

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::TokenBatch, decoder::Decoder, memory::parameters, tokenizer::Tokenizer, train::Averaged,
};
use align_rl::{
    DistillationConfig, DistillationTrainer, RlReport,
    distill::{DistillationExample, DistillationObjective, OffPolicyCompletions},
    rollout::{PromptExample, RolloutRow, sample_rollouts},
};
use anyhow::{Context as _, Result, ensure};

use super::{
    Beside, Example, Kit, LearnsFrom, Learnt, Lesson, Measured, Method, News, Part, Plan, Settings, Texts,
    Tokenize,
    preference::{measured, named},
    prompted,
};
use crate::{run_file::TeacherTable, training::report::Fact};
use record::DistillationRecord;

/// Learning from a teacher.
#[derive(Debug)]
pub(crate) struct Distill;

impl Method for Distill {
    const TITLE: &'static str = "Distillation";
    type Config = DistillationConfig;
    type Record = DistillationRecord;
    type Example = DistillationExample;
    type Row = DistillationExample;
    type Model = Decoder;
    type Trainer = DistillationTrainer<Decoder>;

    fn tokenize<'a>(config: &'a DistillationConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        Box::new(record::tokenize(config, texts))
    }

    fn rows(_: &DistillationConfig, examples: &[DistillationExample]) -> Vec<DistillationExample> {
        examples.to_vec()
    }

    fn tokens(row: &DistillationExample) -> usize {
        row.prompt.tokens.len() + row.completion.as_ref().map_or(0, Vec::len)
    }

    fn pass(config: &DistillationConfig, rows: &[&DistillationExample]) -> (TokenBatch, usize) {
        if config.writes() {
            let prompts: Vec<&PromptExample> = rows.iter().map(|row| &row.prompt).collect();
            return prompted::pass(&config.rollout, config.micro_batch_size.get(), &prompts);
        }
        let (mut batch, mut targets) = (TokenBatch::default(), 0);
        for row in rows {
            let completion = row.completion.as_deref().unwrap_or_default();
            batch.push_sharing(&row.prompt.tokens, &[completion]);
            targets += completion.len();
        }
        (batch, targets)
    }

    fn beside(
        config: &DistillationConfig,
        examples: &[DistillationExample],
        model: &Decoder,
        kit: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        let checkpoint = teacher(kit)?.open()?;
        let of_teacher = checkpoint.architecture().config();
        let mut beside = vec![Beside { name: "teacher", bytes: 4 * parameters(of_teacher) as u64 }];
        if config.writes() {
            let prompts: Vec<PromptExample> = examples.iter().map(|one| one.prompt.clone()).collect();
            let sequences = config.batch_size.get() * config.rollout.samples.get();
            let author =
                if config.off_policy == OffPolicyCompletions::Teacher { of_teacher } else { model.config() };
            beside.push(prompted::keys_and_values(&config.rollout, sequences, &prompts, author));
        }
        Ok(beside)
    }

    fn trainer(
        config: &DistillationConfig,
        model: Decoder,
        lesson: Lesson<'_, DistillationExample>,
    ) -> Result<DistillationTrainer<Decoder>> {
        let kit = &lesson.kit;
        let config = DistillationConfig { rollout: prompted::ending(&config.rollout, kit), ..config.clone() };
        let teacher = teacher(kit)?.load(model.config().vocab_size, kit.compute, kit.start.device)?;
        let tokenizer = Some(kit.tokenizer.clone());
        Ok(DistillationTrainer::new(model, &teacher, tokenizer, &config, lesson.steps)?)
    }

    fn evaluate(
        config: &DistillationConfig,
        trainer: &Averaged<DistillationTrainer<Decoder>>,
        examples: &[DistillationExample],
        _: &Kit<'_>,
    ) -> Result<Measured> {
        let (trainer, model) = (trainer.trainer(), trainer.result());
        let report = if config.learns_from_data() {
            trainer.evaluate(&model, examples)?
        } else {
            let prompts: Vec<PromptExample> = examples.iter().map(|one| one.prompt.clone()).collect();
            trainer.evaluate_own(&model, &prompts)?
        };
        Ok(measured(&report))
    }

    fn news(report: &RlReport) -> News<'_> {
        News { rollouts: &report.rollouts, alarms: &report.alarms }
    }

    fn check_examples(
        config: &DistillationConfig,
        examples: &[DistillationExample],
        kit: &Kit<'_>,
    ) -> Result<()> {
        teacher(kit)?.check_adapter()?;
        let checkpoint = teacher(kit)?.open()?;
        let [own, other] = [kit.start.checkpoint, &checkpoint].map(|one| one.architecture().config());
        // What a teacher knows beyond is left out: models of one tokenizer are filled up to different sizes.
        ensure!(
            own.vocab_size <= other.vocab_size,
            "teacher.path: the teacher knows {} tokens and the student {}: it needs to know all of the student's",
            other.vocab_size,
            own.vocab_size
        );
        let tokenizer =
            checkpoint.tokenizer().context("teacher.path: cannot load the teacher's tokenizer")?;
        check_tokens(kit.tokenizer, &tokenizer)?;
        let longest = examples.iter().map(|one| longest(config, one)).max().unwrap_or(0);
        let (tokens, limit) = (longest.min(own.max_positions), other.max_positions);
        ensure!(
            tokens <= limit,
            "a prompt with its completion may have {tokens} tokens, and the teacher's context has {limit}: set {name}.rollout.prompt_limit, or lower {name}.rollout.max_new_tokens",
            name = DistillationConfig::NAME
        );
        Ok(())
    }

    fn tried(
        config: &DistillationConfig,
        student: &Decoder,
        examples: &[DistillationExample],
        kit: &Kit<'_>,
    ) -> Result<Vec<String>> {
        if config.on_policy.get() <= 0.0 {
            return Ok(Vec::new());
        }
        let rollout = prompted::tried(&config.rollout, kit);
        let prompts: Vec<PromptExample> = examples.iter().map(|one| one.prompt.clone()).collect();
        let samples = sample_rollouts(student, &prompts, &rollout, config.seed, Some(kit.tokenizer))?.samples;
        let heading = format!(
            "completions {} of the student as it is, of at most {} tokens",
            samples.len(),
            rollout.max_new_tokens
        );
        let rows = samples.iter().map(|sampled| format!("\n{}", RolloutRow::new(0, &sampled.rollout)));
        Ok(std::iter::once(heading).chain(rows).collect())
    }

    fn facts(config: &DistillationConfig) -> Vec<Fact> {
        let objective = match config.objective {
            DistillationObjective::Divergence { divergence, .. } => named(&divergence),
            DistillationObjective::PolicyGradient { .. } => named(&config.objective),
        };
        let share = format!("of {} % of the steps", 100.0 * config.on_policy.get());
        vec![Fact::new("objective", objective), Fact::new("written by the student", share)]
    }
}

/// Who is learnt from.
fn teacher<'a>(kit: &Kit<'a>) -> Result<&'a TeacherTable> {
    kit.teacher.context("there is nobody to learn from: add [teacher]")
}

/// Tokens that a prompt may have with its completion.
fn longest(config: &DistillationConfig, example: &DistillationExample) -> usize {
    let sampled = if config.writes() { config.rollout.max_new_tokens.get() } else { 0 };
    let given = example.completion.as_ref().map_or(0, Vec::len);
    example.prompt.tokens.len() + sampled.max(given)
}

/// Checks that both speak of the same tokens; special ones may have other names.
fn check_tokens(student: &Tokenizer, teacher: &Tokenizer) -> Result<()> {
    let count = u32::try_from(student.vocab_size().max(teacher.vocab_size()))?;
    for id in 0..count {
        let [own, other] = [student, teacher].map(|tokenizer| tokenizer.id_to_token(id));
        let (Some(own), Some(other)) = (own, other) else { continue };
        ensure!(
            own == other || student.is_special(id) && teacher.is_special(id),
            "teacher.path: token {id} is `{own}` to the student and `{other}` to the teacher: they need the same tokenizer"
        );
    }
    Ok(())
}

impl Example for DistillationExample {
    const PLURAL: &'static str = "prompts";

    fn parts(&self) -> Vec<Part<'_>> {
        let tokens = &self.prompt.tokens;
        match &self.completion {
            None => vec![Part { name: "", tokens, learnt: Learnt::None }],
            Some(completion) => vec![
                Part { name: "prompt", tokens, learnt: Learnt::None },
                Part { name: "completion", tokens: completion, learnt: Learnt::All },
            ],
        }
    }
}

impl Settings for DistillationConfig {
    const NAME: &'static str = "distill";
    const LEARNS_FROM: LearnsFrom = LearnsFrom::Teacher;
    const LENGTH: &'static str = "rollout.max_new_tokens";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            samples: if self.writes() { self.rollout.samples } else { NonZeroUsize::MIN },
            max_length: self.rollout.max_new_tokens,
            packing: None,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}
