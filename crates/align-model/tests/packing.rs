//! Packing: nothing is lost, nothing is too long, and training on packed rows is training on their samples.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

use std::{num::NonZeroUsize, path::Path, time::Instant};

use align_model::{
    decoder::Decoder,
    device::DeviceName,
    number::Positive,
    pretrained::Architecture,
    sft::{Packing, SftConfig, SftConfigError, SftExample, SftReport, SftRow, SftTrainer, Truncation, rows},
    train::{Schedule, Span, Step, UpdateConfig},
};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::json;

const ALL: [Packing; 3] = [Packing::BestFitDecreasing, Packing::BestFitDecreasingSplit, Packing::Wrapped];

fn nonzero(number: usize) -> NonZeroUsize {
    number.try_into().unwrap()
}

fn model() -> Decoder {
    let config = json!({
        "model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": false, "initializer_range": 0.2, "architectures": ["LlamaForCausalLM"],
    });
    let architecture = Architecture::from_json(Path::new("config.json"), config).unwrap();
    architecture.random(&mut ChaCha8Rng::seed_from_u64(3), &DeviceName::FLEX.open().unwrap())
}

/// Samples of these lengths; their first third is a prompt.
fn examples(lengths: &[usize]) -> Vec<SftExample> {
    let example = |(index, &length): (usize, &usize)| SftExample {
        tokens: (0..length).map(|t| ((t * 7 + index * 11) % 37 + 2) as u32).collect(),
        is_target: (0..length).map(|t| t >= length / 3).collect(),
    };
    lengths.iter().enumerate().map(example).collect()
}

fn config(batch: usize, micro: usize) -> SftConfig {
    SftConfig {
        batch_size: nonzero(batch),
        micro_batch_size: nonzero(micro),
        max_length: nonzero(16),
        update: UpdateConfig {
            learning_rate: Positive::new(1e-2),
            schedule: Schedule::Constant { warmup: Span::Steps(0) },
            ..UpdateConfig::default()
        },
        ..SftConfig::default()
    }
}

/// Four steps on the same batch: what the later ones report depends on every gradient of the earlier ones.
fn train<B: ?Sized>(batch: &B, micro: usize) -> Vec<SftReport>
where
    SftTrainer<Decoder>: Step<B, Report = SftReport, Error: std::fmt::Debug>,
{
    let mut trainer = SftTrainer::new(model(), &config(16, micro), 4).unwrap();
    (0..4).map(|_| trainer.step(batch).unwrap()).collect()
}

#[track_caller]
fn assert_same(a: &[SftReport], b: &[SftReport]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a.loss - b.loss).abs() < 1e-5 * b.loss, "{a:?} {b:?}");
        assert!((a.grad_norm - b.grad_norm).abs() < 1e-4 * b.grad_norm, "{a:?} {b:?}");
        assert!((a.entropy - b.entropy).abs() < 1e-5 * b.entropy, "{a:?} {b:?}");
        assert_eq!(a.num_tokens, b.num_tokens);
    }
}

const LENGTHS: [usize; 9] = [5, 9, 16, 3, 7, 12, 2, 6, 8];

#[test]
fn packed_rows_train_as_their_samples_do() {
    let samples = examples(&LENGTHS);
    let packed = Packing::BestFitDecreasing.pack(&samples, nonzero(16));
    assert!(packed.len() < samples.len());
    let alone = train(samples.as_slice(), 1);
    assert_same(&train(packed.as_slice(), 2), &alone);
    assert_same(&train(packed.as_slice(), 16), &alone);
}

#[test]
fn one_pass_over_all_rows_equals_a_pass_for_each() {
    for packing in ALL {
        let packed = packing.pack(&examples(&LENGTHS), nonzero(10));
        let whole = train(packed.as_slice(), 16);
        for micro in [1, 3] {
            assert_same(&train(packed.as_slice(), micro), &whole);
        }
    }
}

#[test]
fn a_sample_alone_is_a_row() {
    let samples = examples(&LENGTHS);
    let alone: Vec<SftRow> = rows(samples.clone(), &config(8, 8));
    assert_eq!(alone.len(), samples.len());
    assert_eq!(train(alone.as_slice(), 4), train(samples.as_slice(), 4));
}

#[test]
fn a_wrapped_row_is_one_sequence() {
    let rows = Packing::Wrapped.pack(&examples(&[3, 4]), nonzero(5));
    assert_eq!(rows.iter().map(|row| row.sequences.len()).collect::<Vec<_>>(), [1, 1]);
    // The second sample's first token has something before it here, and is predicted.
    assert_eq!(rows[0].sequences[0].is_target, [false, true, true, false, true]);
    assert_eq!((rows[0].tokens(), rows[0].targets(), rows[1].targets()), (5, 3, 1));
}

#[test]
fn the_seed_decides_what_is_packed_together() {
    let samples = examples(&[4; 40]);
    let of = |seed| {
        let config = SftConfig { packing: Some(Packing::BestFitDecreasing), seed, ..config(8, 8) };
        rows(samples.clone(), &config)
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert_eq!(of(1).len(), 10);
    assert_eq!(rows(Vec::new(), &SftConfig { packing: Some(Packing::Wrapped), ..config(8, 8) }), []);
}

#[test]
fn rows_without_a_loss_are_left_out() {
    let prompt = SftExample { tokens: vec![5; 30], is_target: (0..30).map(|t| t == 29).collect() };
    for packing in [Packing::BestFitDecreasingSplit, Packing::Wrapped] {
        let rows = rows(vec![prompt.clone()], &SftConfig { packing: Some(packing), ..config(8, 8) });
        assert_eq!(rows.iter().map(SftRow::tokens).collect::<Vec<_>>(), [14]);
    }
}

#[test]
fn the_end_cannot_be_kept_where_nothing_is_cut_off() {
    let check = |packing| {
        SftConfig { packing: Some(packing), truncation: Truncation::KeepEnd, ..config(8, 8) }.check()
    };
    assert_eq!(check(Packing::BestFitDecreasing), Ok(()));
    let error = check(Packing::Wrapped).unwrap_err();
    assert_eq!(error, SftConfigError::NothingToTruncate { packing: Packing::Wrapped });
    assert!(error.to_string().contains("`packing` = \"wrapped\""), "{error}");
}

#[test]
fn settings_name_a_packing_as_trl_does() {
    let names = ALL.map(|packing| serde_json::to_value(packing).unwrap());
    assert_eq!(names, ["bfd", "bfd_split", "wrapped"]);
}

#[test]
fn a_million_lengths_take_no_time() {
    let lengths: Vec<usize> =
        (0..1_000_000u64).map(|i| (i * i % 2_654_435_761 * 7 % 4099) as usize).collect();
    for packing in ALL {
        let start = Instant::now();
        let rows = packing.pack_lengths(&lengths, nonzero(2048));
        assert!(!rows.is_empty());
        // A quadratic algorithm takes hours; a busy machine must not fail the test.
        assert!(start.elapsed().as_secs() < 60, "{packing:?}: {:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn every_token_is_packed_once(lengths in prop::collection::vec(0usize..40, 0..60), row in 1usize..20) {
        for packing in ALL {
            let rows = packing.pack_lengths(&lengths, nonzero(row));
            let mut seen: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
            for fragments in &rows {
                prop_assert!(!fragments.is_empty());
                prop_assert!(fragments.iter().map(|f| f.tokens.len()).sum::<usize>() <= row);
                for fragment in fragments {
                    prop_assert!(!fragment.tokens.is_empty());
                    seen[fragment.sample][fragment.tokens.clone()].iter_mut().for_each(|count| *count += 1);
                }
            }
            for (sample, counts) in seen.iter().enumerate() {
                let kept = if packing.keeps_every_token() { lengths[sample] } else { lengths[sample].min(row) };
                prop_assert!(counts[..kept].iter().all(|&count| count == 1), "{packing:?} {sample}");
                prop_assert!(counts[kept..].iter().all(|&count| count == 0), "{packing:?} {sample}");
            }
            if packing == Packing::Wrapped {
                prop_assert_eq!(rows.len(), lengths.iter().sum::<usize>().div_ceil(row));
            }
        }
    }

    #[test]
    fn no_two_rows_could_be_one(lengths in prop::collection::vec(0usize..40, 0..60), row in 1usize..20) {
        for packing in [Packing::BestFitDecreasing, Packing::BestFitDecreasingSplit] {
            let rows = packing.pack_lengths(&lengths, nonzero(row));
            let mut filled: Vec<usize> =
                rows.iter().map(|row| row.iter().map(|f| f.tokens.len()).sum()).collect();
            filled.sort_unstable();
            prop_assert!(filled.len() < 2 || filled[0] + filled[1] > row);
        }
    }
}
