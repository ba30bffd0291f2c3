//! Training on a stream is training on the same records in memory, bit for bit.

use std::{num::NonZeroUsize, str::FromStr as _};

use align_model::{
    data::{Batched, DatasetConfig, Passes, SftRecord, read},
    sft::{SftConfig, SftExample, SftTokenizer},
    tokenizer::Tokenizer,
    train::Step as _,
};
use serde_json::{Map, Value, json};

use crate::fine_tuning::{bits, config, model, trainer};

const WORDS: usize = 200;
const STEPS: usize = 8;

/// Words are tokens.
fn tokenizer() -> Tokenizer {
    let vocab: Map<String, Value> = (0..WORDS).map(|id| (format!("w{id}"), id.into())).collect();
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    });
    let inner = tokenizers::Tokenizer::from_str(&definition.to_string()).unwrap();
    Tokenizer::from_parts(inner, json!({ "eos_token": "w1", "unk_token": "w0" })).unwrap()
}

/// Thirteen samples of different lengths; two more are cut before they have anything to learn.
fn file(directory: &tempfile::TempDir) -> DatasetConfig {
    let words = |count: usize, first: usize| {
        (0..count).map(|i| format!("w{}", (i * 31 + first * 17) % WORDS)).collect::<Vec<_>>().join(" ")
    };
    let row = |i: usize| {
        let prompt = if i % 7 == 5 { 40 } else { 1 + i % 4 };
        let row = json!({ "prompt": words(prompt, i) + " ", "completion": words(2 + i * 3 % 11, i + 50) });
        format!("{row}\n")
    };
    let path = directory.path().join("train.jsonl");
    std::fs::write(&path, (0..15).map(row).collect::<String>()).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn a_stream_teaches_what_the_same_records_in_memory_teach() {
    let directory = tempfile::tempdir().unwrap();
    let data = file(&directory);
    let tokenizer = tokenizer();
    let sft = SftConfig { max_length: NonZeroUsize::new(30).unwrap(), ..config(2) };
    let tokenizer = SftTokenizer::new(&sft, &tokenizer, None);
    for window in [1, 4, 100] {
        let passes =
            || Passes::<SftRecord>::new(data.clone(), NonZeroUsize::new(window).unwrap(), 7).unwrap();
        let samples = passes().filter_map(|record| {
            let outcome = record.map(|record| tokenizer.sample(&record).unwrap());
            outcome.map(|outcome| outcome.example).transpose()
        });
        let streamed = Batched::new(samples, sft.batch_size).map(Result::unwrap);

        let records = read::<SftRecord>(&data).unwrap().records;
        let examples: Vec<Option<SftExample>> =
            records.iter().map(|record| tokenizer.sample(record).unwrap().example).collect();
        assert_eq!(examples.iter().flatten().count(), 13);
        let order: Vec<usize> = passes().take(STEPS * 8).map(|record| record.unwrap().line - 1).collect();
        assert_eq!(order[..15].is_sorted(), window == 1);
        let in_order: Vec<SftExample> = order.into_iter().filter_map(|line| examples[line].clone()).collect();

        let mut from_stream = trainer(model(), 2, STEPS as u64);
        let mut from_memory = trainer(model(), 2, STEPS as u64);
        let in_memory = in_order.chunks(sft.batch_size.get());
        for (a, b) in streamed.zip(in_memory).take(STEPS) {
            assert_eq!(a, b);
            let (a, b) = (from_stream.step(a.as_slice()).unwrap(), from_memory.step(b).unwrap());
            assert_eq!((a.loss.to_bits(), a.grad_norm.to_bits()), (b.loss.to_bits(), b.grad_norm.to_bits()));
        }
        assert_eq!(bits(&from_stream), bits(&from_memory));
    }
}
