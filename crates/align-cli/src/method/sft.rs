//! Supervised fine-tuning.

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::TokenBatch,
    data::SftRecord,
    decoder::Decoder,
    sft::{LossOn, SftConfig, SftDataError, SftExample, SftRow, SftTokenizer, SftTrainer, evaluate, rows},
    train::Averaged,
};
use anyhow::{Context as _, Result};

use super::{
    Example, Kit, Learnt, Lesson, Measured, Method, Note, Part, Plan, Settings, Texts, Tokenize, Tokenized,
};
use crate::training::report::Fact;

/// Supervised fine-tuning.
#[derive(Debug)]
pub(crate) struct Sft;

impl Method for Sft {
    const TITLE: &'static str = "Supervised fine-tuning";
    type Config = SftConfig;
    type Record = SftRecord;
    type Example = SftExample;
    type Row = SftRow;
    type Model = Decoder;
    type Trainer = SftTrainer<Decoder>;

    fn tokenize<'a>(config: &'a SftConfig, texts: Texts<'a>) -> Tokenize<'a, Self> {
        let tokenizer = SftTokenizer {
            now: Some(texts.now),
            ..SftTokenizer::new(config, texts.tokenizer, texts.templates)
        };
        Box::new(move |located| {
            let whole = tokenizer.whole(&located.record).map_err(|source| {
                let (path, line) = (located.path.display().to_string(), located.line);
                SftDataError { path, line, source }
            });
            let whole = whole.context("cannot prepare the data")?;
            let mut example = whole.example;
            let lengths = vec![example.tokens.len()];
            let is_truncated = tokenizer.truncate(&mut example);
            let without_loss = example.targets() == 0;
            let possible = [
                (is_truncated, Note::Truncated),
                (without_loss, Note::WithoutLoss),
                (whole.uneven_boundary, Note::UnevenBoundary),
            ];
            let notes = possible.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect();
            let examples = if without_loss { Vec::new() } else { vec![example] };
            Ok(Tokenized { examples, lengths, notes })
        })
    }

    fn rows(config: &SftConfig, examples: &[SftExample]) -> Vec<SftRow> {
        rows(examples.to_vec(), config)
    }

    fn tokens(row: &SftRow) -> usize {
        row.tokens()
    }

    fn pass(_: &SftConfig, rows: &[&SftRow]) -> (TokenBatch, usize) {
        let sequences: Vec<&[u32]> =
            rows.iter().flat_map(|row| &row.sequences).map(|one| one.tokens.as_slice()).collect();
        (TokenBatch::from_sequences(&sequences), rows.iter().map(|row| row.targets()).sum())
    }

    fn trainer(
        config: &SftConfig,
        model: Decoder,
        lesson: Lesson<'_, SftExample>,
    ) -> Result<SftTrainer<Decoder>> {
        Ok(SftTrainer::new(model, config, lesson.steps)?)
    }

    fn evaluate(
        config: &SftConfig,
        trainer: &Averaged<SftTrainer<Decoder>>,
        examples: &[SftExample],
        _: &Kit<'_>,
    ) -> Result<Measured> {
        let report = evaluate(&trainer.result(), examples, config.loss, config.micro_batch_size)?;
        Ok(report.metrics().map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn facts(config: &SftConfig) -> Vec<Fact> {
        let loss_on = match config.loss_on {
            LossOn::Completion => "completions",
            LossOn::Everything => "everything",
            LossOn::Assistant => "what the assistant says",
        };
        vec![Fact::new("loss on", loss_on)]
    }
}

impl Settings for SftConfig {
    const NAME: &'static str = "sft";

    fn check(&self) -> Result<()> {
        Ok(Self::check(self)?)
    }

    fn plan(&self) -> Plan {
        Plan {
            duration: self.duration,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            max_length: self.max_length,
            packing: self.packing,
            samples: NonZeroUsize::MIN,
            recompute: self.recompute,
            learning_rate: self.update.learning_rate.get(),
            seed: self.seed,
        }
    }
}

impl Example for SftExample {
    const PLURAL: &'static str = "samples";

    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part { name: "", tokens: &self.tokens, learnt: Learnt::Marked(&self.is_target) }]
    }
}
