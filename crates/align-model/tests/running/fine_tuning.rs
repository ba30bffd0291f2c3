//! The fine-tuning trainer in such runs: bit for bit the same, wherever it was interrupted.

use std::{collections::BTreeMap, num::NonZeroUsize, path::Path};

use align_model::{
    causal_lm::CausalLm,
    checkpoint::{Resumable, State},
    data::ShuffledBatches,
    decoder::Decoder,
    number::{NonNegative, Positive, ProperFraction, UnitInterval},
    pretrained::Checkpoint,
    sft::{EvaluationError, SftConfig, SftError, SftExample, SftLoss, SftReport, SftTrainer, evaluate},
    train::{
        AdamWConfig, Averaged, EmaConfig, EmaWarmup, FitError, Report, Schedule, Span, Step, TrainingLoop,
        UpdateConfig, fingerprint_of, fit,
    },
};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};

use crate::toy::store;

pub(crate) type Trainer = Averaged<SftTrainer<Decoder>>;

pub(crate) fn model() -> Decoder {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/arch_llama_bias"));
    Checkpoint::open(path).unwrap().load(&Device::flex().autodiff()).unwrap()
}

pub(crate) fn samples() -> Vec<SftExample> {
    let sample = |i: u32| {
        let tokens: Vec<u32> = (0..6 + i * 3 % 11).map(|t| (t * 31 + i * 17) % 250 + 3).collect();
        let is_target = (0..tokens.len()).map(|t| t > i as usize % 4).collect();
        SftExample { tokens, is_target }
    };
    (0..13).map(sample).collect()
}

/// Everything that a state depends on is in use: decay, a schedule, the average, an uneven last batch.
pub(crate) fn config(micro_batch_size: usize) -> SftConfig {
    SftConfig {
        batch_size: 5.try_into().unwrap(),
        micro_batch_size: micro_batch_size.try_into().unwrap(),
        update: UpdateConfig {
            learning_rate: Positive::new(1e-2),
            schedule: Schedule::Linear { warmup: Span::Steps(3) },
            optimizer: AdamWConfig { weight_decay: NonNegative::new(0.1), ..AdamWConfig::default() },
            ..UpdateConfig::default()
        },
        ..SftConfig::default()
    }
}

pub(crate) fn trainer(model: Decoder, micro_batch_size: usize, steps: u64) -> Trainer {
    let ema = EmaConfig { decay: ProperFraction::new(0.9), warmup: EmaWarmup::Ramp };
    Averaged::new(SftTrainer::new(model, &config(micro_batch_size), steps).unwrap(), Some(ema))
}

pub(crate) fn batches(seed: u64) -> impl Iterator<Item = Vec<SftExample>> {
    let samples = samples();
    ShuffledBatches::new(samples.len(), 5, seed)
        .map(move |batch| batch.into_iter().map(|index| samples[index].clone()).collect())
}

/// Every bit of a trainer's state.
pub(crate) fn bits(trainer: &Trainer) -> BTreeMap<String, Vec<u32>> {
    let mut state = State::new();
    trainer.save(&mut state).unwrap();
    let names: Vec<String> = state.tensor_names().map(ToOwned::to_owned).collect();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    names
        .into_iter()
        .map(|name| (name.clone(), bits(state.take_tensor(&name).unwrap().into_values().unwrap())))
        .collect()
}

#[test]
fn ten_steps_and_ten_more_are_twenty() {
    for micro_batch_size in [5, 2] {
        let mut straight = trainer(model(), micro_batch_size, 20);
        fit::<_, [SftExample], _>(&mut straight, batches(7), 20, &mut []).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut reports = Vec::new();
        for until in [10, 20] {
            let mut checkpoints = store(directory.path(), 10);
            let mut resumed = trainer(model(), micro_batch_size, 20);
            let mut run = TrainingLoop::new(20).with_checkpoints(&mut checkpoints);
            run.resume::<SftReport>(&mut resumed, &mut []).unwrap();
            // The batches end early in place of a process that is killed.
            run.run::<[SftExample]>(&mut resumed, batches(7).take(until), &mut []).unwrap();
            reports.push(bits(&resumed));
        }
        assert_ne!(reports[0], reports[1]);
        assert_eq!(reports[1], bits(&straight));
        let parameters = bits(&straight).keys().filter(|name| name.starts_with("parameters/")).count();
        assert_eq!(bits(&straight).len(), 4 * parameters, "weights, two moments and the average");
    }
}

#[test]
fn a_restored_trainer_reports_what_the_other_does() {
    let mut one = trainer(model(), 5, 9);
    for batch in batches(1).take(4) {
        one.step(&batch[..]).unwrap();
    }
    let mut state = State::new();
    one.save(&mut state).unwrap();
    let mut other = trainer(model(), 5, 9);
    other.restore(&mut state).unwrap();
    state.finish().unwrap();
    for batch in batches(1).skip(4).take(3) {
        assert_eq!(one.step(&batch[..]).unwrap().metrics(), other.step(&batch[..]).unwrap().metrics());
    }
    assert_eq!(bits(&one), bits(&other));
}

#[test]
fn a_state_of_something_else_is_refused() {
    let with_average = trainer(model(), 5, 9);
    let mut state = State::new();
    with_average.save(&mut state).unwrap();
    let mut without = Averaged::new(SftTrainer::new(model(), &config(5), 9).unwrap(), None);
    without.restore(&mut state).unwrap();
    assert!(state.finish().unwrap_err().to_string().contains("average/"));
    let mut empty = State::new();
    assert!(without.restore(&mut empty).is_err());
}

/// Freezes all but what stands below one path.
struct FreezeAllBut(&'static str, Vec<String>);

impl ModuleMapper for FreezeAllBut {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.1.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.1.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trains = self.1.join(".").starts_with(self.0);
        parameter.set_require_grad(trains)
    }
}

#[test]
fn what_is_frozen_is_not_written_and_stays_as_it_is() {
    let frozen = || model().map(&mut FreezeAllBut("layers.1.", Vec::new()));
    let before = weights(&frozen());
    let mut straight = trainer(frozen(), 5, 6);
    let mut half = trainer(frozen(), 5, 6);
    for batch in batches(2).take(3) {
        straight.step(&batch[..]).unwrap();
        half.step(&batch[..]).unwrap();
    }
    let mut state = State::new();
    half.save(&mut state).unwrap();
    assert!(state.tensor_names().count() > 0);
    assert!(state.tensor_names().all(|name| name.contains("layers.1.")), "{state:?}");
    let mut resumed = trainer(frozen(), 5, 6);
    resumed.restore(&mut state).unwrap();
    for batch in batches(2).skip(3).take(3) {
        straight.step(&batch[..]).unwrap();
        resumed.step(&batch[..]).unwrap();
    }
    assert_eq!(bits(&straight), bits(&resumed));
    for (name, values) in weights(&resumed.result()) {
        assert_eq!(values == before[&name], !name.starts_with("layers.1."), "{name}");
    }
}

/// All parameters of a model.
fn weights(model: &Decoder) -> BTreeMap<String, Vec<f32>> {
    struct Read(Vec<String>, BTreeMap<String, Vec<f32>>);
    impl ModuleVisitor for Read {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }

        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.1.insert(self.0.join("."), parameter.val().into_data().try_into_vec().unwrap());
        }
    }
    let mut read = Read(Vec::new(), BTreeMap::new());
    model.visit(&mut read);
    read.1
}

#[test]
fn the_average_is_what_its_formula_says() {
    let ema = EmaConfig { decay: ProperFraction::new(0.5), warmup: EmaWarmup::Ramp };
    assert!((ema.decay_at(1) - 2.0 / 11.0).abs() < 1e-12);
    assert!((ema.decay_at(100) - 0.5).abs() < 1e-12);
    let mut trainer = Averaged::new(SftTrainer::new(model(), &config(5), 12).unwrap(), Some(ema.clone()));
    let mut expected = weights(&model());
    for (step, batch) in (1..=12).zip(batches(3)) {
        trainer.step(&batch[..]).unwrap();
        let decay = ema.decay_at(step);
        for (name, now) in weights(trainer.trainer().model()) {
            for (average, now) in expected.get_mut(&name).unwrap().iter_mut().zip(now) {
                *average = (f64::from(*average) * decay + f64::from(now) * (1.0 - decay)) as f32;
            }
        }
    }
    let averaged = weights(&trainer.averaged_model().unwrap());
    for (name, expected) in expected {
        for (a, b) in averaged[&name].iter().zip(expected) {
            assert!((a - b).abs() <= 2e-6 * b.abs().max(0.1), "{name}: {a} {b}");
        }
    }
    assert!(!trainer.result().device().is_autodiff());
}

#[test]
fn evaluation_agrees_with_training_however_it_is_cut() {
    let samples = samples();
    let all = NonZeroUsize::new(samples.len()).unwrap();
    let config = SftConfig { batch_size: all, micro_batch_size: all, ..config(5) };
    let whole = evaluate(&model(), &samples, SftLoss::default(), all).unwrap();
    let step = SftTrainer::new(model(), &config, 1).unwrap().step(&samples[..]).unwrap();
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-5 * b.abs(), "{a} {b}");
    close(whole.loss, step.loss);
    close(whole.entropy, step.entropy);
    close(whole.mean_token_accuracy, step.mean_token_accuracy);
    close(whole.perplexity, whole.loss.exp());
    assert_eq!(whole.num_tokens as usize, samples.iter().map(SftExample::targets).sum::<usize>());
    for micro in [1, 4] {
        let cut = evaluate(&model(), &samples, SftLoss::default(), micro.try_into().unwrap()).unwrap();
        close(cut.loss, whole.loss);
        close(cut.entropy, whole.entropy);
    }
    let smoothed = SftLoss::Nll { label_smoothing: UnitInterval::new(0.1) };
    let smoothed = evaluate(&model(), &samples, smoothed, all).unwrap();
    assert!((smoothed.loss - whole.loss).abs() > 1e-3);
    close(smoothed.perplexity, whole.perplexity);
}

#[test]
fn what_cannot_be_evaluated_is_named() {
    let one = NonZeroUsize::MIN;
    let long = SftExample { tokens: vec![5; 300], is_target: vec![true; 300] };
    let error = evaluate(&model(), &[samples()[0].clone(), long], SftLoss::default(), one).unwrap_err();
    assert_eq!(error, EvaluationError::TooLong { index: 1, tokens: 300, limit: 256 });
    let silent = SftExample { tokens: vec![5; 4], is_target: vec![true, false, false, false] };
    let error = evaluate(&model(), &[silent], SftLoss::default(), one).unwrap_err();
    assert_eq!(error, EvaluationError::NoTargets { samples: 1 });
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_at_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoints = store(directory.path(), 1);
    let mut config = config(5);
    config.update.learning_rate = Positive::new(1e30);
    config.update.schedule = Schedule::Constant { warmup: Span::Steps(0) };
    let mut exploding = Averaged::new(SftTrainer::new(model(), &config, 9).unwrap(), None);
    let run = TrainingLoop::new(9)
        .with_checkpoints(&mut checkpoints)
        .describing(|batch: &Vec<SftExample>| format!("{} samples", batch.len()));
    let error = run.run::<[SftExample]>(&mut exploding, batches(1), &mut []).unwrap_err();
    assert!(
        matches!(&error, FitError::Step { step: 2, source: SftError::NotFinite { .. }, .. }),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "step 2 on 5 samples failed; the checkpoint of step 1 stands");
}

#[test]
fn a_fingerprint_tells_models_apart() {
    let of = |model: &Decoder| fingerprint_of(model).unwrap();
    assert_eq!(of(&model()), of(&model().valid()));
    let mut trainer = trainer(model(), 5, 9);
    // The first step of the warm-up has rate 0.
    for batch in batches(1).take(2) {
        trainer.step(&batch[..]).unwrap();
    }
    assert_ne!(of(&model()), of(trainer.trainer().model()));
}
