//! Forward pass, generation and a training step of a small random llama, or of the model that `ALIGN_BENCH_MODEL` names.
//!
//! Throughput is in tokens: prompt tokens forward, new tokens in generation. A time means something beside another
//! program's on the same machine in the same minutes, and is quoted only as their ratio.

use std::{hint::black_box, path::Path};

use align_model::{
    causal_lm::{CausalLm, Recompute, TokenBatch},
    decoder::Decoder,
    generate::{Decoding, GenerationConfig, SamplingConfig, generate},
    logprob::{Targets, token_log_probs},
    pretrained::{Architecture, Checkpoint},
    sft::{SftConfig, SftExample, SftTrainer},
    train::Step,
};
use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LENGTH: usize = 128;
const SEQUENCES: usize = 4;
const NEW_TOKENS: usize = 32;

fn model() -> Decoder {
    let device = Device::flex();
    if let Some(path) = std::env::var_os("ALIGN_BENCH_MODEL") {
        let checkpoint = Checkpoint::open(Path::new(&path)).expect("ALIGN_BENCH_MODEL names a model");
        return checkpoint.load(&device).expect("its weights can be read");
    }
    let json = serde_json::json!({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8192, "max_position_embeddings": 1024,
    });
    let architecture =
        Architecture::from_json(Path::new("config.json"), json).expect("a valid configuration");
    architecture.random(&mut rand_chacha::ChaCha8Rng::seed_from_u64(0), &device)
}

fn sequences(vocab: usize) -> Vec<Vec<u32>> {
    let token = |row: usize, column: usize| ((column * 7919 + row * 104_729) % (vocab - 100) + 100) as u32;
    (0..SEQUENCES).map(|row| (0..LENGTH).map(|column| token(row, column)).collect()).collect()
}

fn forward(criterion: &mut Criterion) {
    let model = model();
    let batch = TokenBatch::from_sequences(&sequences(model.vocab_size()));
    let targets = Targets::all(&batch);
    let mut group = criterion.benchmark_group("token_log_probs");
    group.sample_size(10).throughput(Throughput::Elements((SEQUENCES * LENGTH) as u64));
    group.bench_function("4x128", |bencher| {
        bencher.iter(|| black_box(token_log_probs(&model, &batch, &targets).summed().into_data()));
    });
    group.finish();
}

fn generation(criterion: &mut Criterion) {
    let model = model();
    let config = GenerationConfig {
        max_new_tokens: NEW_TOKENS.try_into().expect("not zero"),
        sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
        ..GenerationConfig::default()
    };
    let mut group = criterion.benchmark_group("generate");
    group.sample_size(10);
    for rows in [1, 8] {
        let prompts: Vec<Vec<u32>> =
            sequences(model.vocab_size()).into_iter().cycle().take(rows).map(|s| s[..32].to_vec()).collect();
        group.throughput(Throughput::Elements((rows * NEW_TOKENS) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(rows), &prompts, |bencher, prompts| {
            bencher.iter(|| generate(&model, prompts, &config, None).expect("prompts that fit"));
        });
    }
    group.finish();
}

/// Steps on equal sequences, with what is recomputed, and on prompts with completions of unequal lengths.
fn training(criterion: &mut Criterion) {
    let vocab = model().vocab_size();
    let whole = |tokens: Vec<u32>| SftExample { is_target: vec![true; tokens.len()], tokens };
    let equal: Vec<SftExample> = sequences(vocab).into_iter().map(whole).collect();
    let ragged: Vec<SftExample> =
        sequences(vocab).into_iter().zip([16, 48, 80, 128]).map(completion).collect();
    let mut group = criterion.benchmark_group("sft_step");
    group.sample_size(10);
    for (name, batch, recompute) in [
        ("4x128", &equal, Recompute::Nothing),
        ("4x128, attention recomputed", &equal, Recompute::Attention),
        ("4x128, layers recomputed", &equal, Recompute::Layers),
        ("16 to 128, completions", &ragged, Recompute::Nothing),
    ] {
        let config = SftConfig { recompute, ..SftConfig::default() };
        let mut trainer = SftTrainer::new(model(), &config, 10_000).expect("valid settings");
        let tokens: usize = batch.iter().map(|example| example.tokens.len()).sum();
        group.throughput(Throughput::Elements(tokens as u64));
        group
            .bench_function(name, |bencher| bencher.iter(|| trainer.step(batch.as_slice()).expect("a step")));
    }
    group.finish();
}

/// The first `length` tokens, of which the second half carries the loss.
fn completion((mut tokens, length): (Vec<u32>, usize)) -> SftExample {
    tokens.truncate(length);
    SftExample { is_target: (0..length).map(|index| index >= length / 2).collect(), tokens }
}

criterion_group!(benches, forward, generation, training);
criterion_main!(benches);
