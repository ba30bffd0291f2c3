//! One line of a comparison with another program: runs a piece of work a few times and prints one line of JSON with its
//! median speed and the peak resident set. `compare.py` runs it in turn with a PyTorch script that does the same.
//!
//! ```sh
//! cargo run --release --manifest-path benches/Cargo.toml --bin compare -- sft --model MODEL [--reps 3] [--recompute layers]
//! ```
//!
//! Lines: `forward`, `sft`, `ragged`, `packed`, `lora`, `lora-ragged`, `dpo`, `reward`, `grpo`, `ppo`, `generate-1`, `generate-8`. Training lines
//! also print what `align_model::memory` expects the peak to be.

mod pairs;
mod rollouts;

use std::{error::Error, path::Path, time::Instant};

use align_model::{
    adapter::{LoraConfig, Targets as AdapterTargets},
    causal_lm::{Recompute, TokenBatch},
    decoder::{BaseWeights, ComputeDtype, Decoder},
    generate::{Decoding, GenerationConfig, SamplingConfig, generate},
    logprob::{Targets, token_log_probs},
    memory::{LargestPass, MemoryEstimate, Trained, TrainingSetup},
    number::Positive,
    pretrained::{Checkpoint, Family},
    sft::{Packing, SftConfig, SftExample, SftRow, SftTrainer},
    train::{Schedule, Span, Step, UpdateConfig},
};
use burn::tensor::Device;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prompt and completion tokens of each sequence of the ragged lines.
const RAGGED: [(usize, usize); 6] = [(16, 16), (32, 32), (64, 96), (96, 128), (96, 224), (136, 376)];

/// Tokens of a packed row, at most: two of them hold the ragged samples.
const ROW: usize = 672;

struct Options {
    line: String,
    model: String,
    reps: usize,
    sequences: usize,
    length: usize,
    recompute: Recompute,
    compute: ComputeDtype,
}

/// What a line measured.
struct Measured {
    tokens: usize,
    seconds: Vec<f64>,
    details: serde_json::Value,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let base = memory_mb("VmRSS")?;
    let mut measured = if options.line == "reward" {
        pairs::reward(&options, base)?
    } else {
        of_language_model(&options, base)?
    };
    measured.seconds.sort_by(f64::total_cmp);
    let step = measured.seconds[measured.seconds.len() / 2];
    let line = serde_json::json!({
        "name": options.line, "tokens_per_s": measured.tokens as f64 / step, "step_s": step, "tokens": measured.tokens,
        "peak_rss_mb": memory_mb("VmHWM")?, "base_rss_mb": base, "details": measured.details,
    });
    println!("{line}");
    Ok(())
}

fn of_language_model(options: &Options, base: f64) -> Result<Measured, Box<dyn Error>> {
    let model = Checkpoint::open(Path::new(&options.model))?.load(&Device::flex())?;
    let model = model.with_compute_dtype(options.compute)?;
    Ok(match options.line.as_str() {
        "forward" => forward(&model, options),
        "sft" => training(model, &alone(equal(options)), options, Trained::Everything, base)?,
        "ragged" => training(model, &alone(ragged()), options, Trained::Everything, base)?,
        "packed" => {
            let rows = Packing::BestFitDecreasing.pack(&ragged(), ROW.try_into()?);
            training(model, &rows, options, Trained::Everything, base)?
        }
        "lora" => adapted(model, &alone(equal(options)), options, base)?,
        "lora-ragged" => adapted(model, &alone(ragged()), options, base)?,
        "dpo" => pairs::dpo(model, options, base)?,
        "grpo" => rollouts::grpo(model, options, base)?,
        "ppo" => rollouts::ppo(model, options)?,
        "generate-1" => generation(&model, 1, options)?,
        "generate-8" => generation(&model, 8, options)?,
        other => return Err(format!("there is no line `{other}`").into()),
    })
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let line = arguments.next().ok_or("which line?")?;
    let (recompute, compute) = (Recompute::Nothing, ComputeDtype::Float32);
    let mut options =
        Options { line, model: String::new(), reps: 3, sequences: 4, length: 256, recompute, compute };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--model" => options.model = value,
            "--reps" => options.reps = value.parse()?,
            "--sequences" => options.sequences = value.parse()?,
            "--length" => options.length = value.parse()?,
            "--recompute" => options.recompute = serde_json::from_value(value.into())?,
            "--compute" => options.compute = serde_json::from_value(value.into())?,
            other => return Err(format!("there is no option `{other}`").into()),
        }
    }
    Ok(options)
}

/// Token ids that the PyTorch scripts draw in the same way.
fn token_ids(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        100 + (state >> 16) % 40_000
    };
    (0..count).map(|_| next()).collect()
}

fn equal(options: &Options) -> Vec<SftExample> {
    let example =
        |seed| SftExample { tokens: token_ids(options.length, seed), is_target: vec![true; options.length] };
    (0..options.sequences as u32).map(example).collect()
}

fn ragged() -> Vec<SftExample> {
    let example = |(seed, &(prompt, completion)): (usize, &(usize, usize))| SftExample {
        tokens: token_ids(prompt + completion, seed as u32),
        is_target: (0..prompt + completion).map(|index| index >= prompt).collect(),
    };
    RAGGED.iter().enumerate().map(example).collect()
}

/// Rows of one sample each.
fn alone(examples: Vec<SftExample>) -> Vec<SftRow> {
    examples.into_iter().map(SftRow::from).collect()
}

/// Runs `work` once to warm up and then as often as asked.
fn timed(options: &Options, mut work: impl FnMut()) -> Vec<f64> {
    let mut once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    once();
    (0..options.reps).map(|_| once()).collect()
}

fn forward(model: &Decoder, options: &Options) -> Measured {
    let sequences: Vec<Vec<u32>> = equal(options).into_iter().map(|example| example.tokens).collect();
    let batch = TokenBatch::from_sequences(&sequences);
    let (targets, mut sums) = (Targets::all(&batch), Vec::new());
    let seconds = timed(options, || {
        sums = token_log_probs(model, &batch, &targets).summed().into_data().iter::<f32>().collect();
    });
    Measured { tokens: batch.tokens().len(), seconds, details: serde_json::json!({ "sum_logp": sums }) }
}

fn training(
    model: Decoder,
    rows: &[SftRow],
    options: &Options,
    trained: Trained,
    base: f64,
) -> Result<Measured, Box<dyn Error>> {
    let sequences = rows.iter().flat_map(|row| &row.sequences);
    let lengths: Vec<usize> = sequences.map(|sequence| sequence.tokens.len()).collect();
    let pass = LargestPass { lengths: &lengths, targets: rows.iter().map(SftRow::targets).sum() };
    let setup = TrainingSetup {
        trained,
        recompute: options.recompute,
        compute: options.compute,
        base: BaseWeights::Full,
        passes: 1,
        copies: 0,
    };
    let estimate = MemoryEstimate::new(model.config(), &setup, &pass);
    let schedule = Schedule::Constant { warmup: Span::Steps(0) };
    let update = UpdateConfig { learning_rate: Positive::new(1e-5), schedule, ..UpdateConfig::default() };
    let config = SftConfig { recompute: options.recompute, update, ..SftConfig::default() };
    let mut sft = SftTrainer::new(model, &config, 10_000)?;
    let mut losses = Vec::new();
    let mut failure = None;
    let seconds = timed(options, || match sft.step(rows) {
        Ok(report) => losses.push(report.loss),
        Err(error) => failure = Some(error),
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    let expected = estimate.total((base * MEBIBYTE) as u64) as f64 / MEBIBYTE;
    let details = serde_json::json!({
        "losses": losses, "expected_peak_mb": expected, "estimate": format!("{estimate:?}"),
    });
    Ok(Measured { tokens: lengths.iter().sum(), seconds, details })
}

fn generation(model: &Decoder, rows: usize, options: &Options) -> Result<Measured, Box<dyn Error>> {
    const NEW_TOKENS: usize = 64;
    let config = GenerationConfig {
        max_new_tokens: NEW_TOKENS.try_into()?,
        sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
        ..GenerationConfig::default()
    };
    let prompts: Vec<Vec<u32>> = (0..rows as u32).map(|seed| token_ids(32, seed)).collect();
    generate(model, &prompts, &config, None)?;
    let seconds = timed(options, || drop(generate(model, &prompts, &config, None)));
    Ok(Measured { tokens: rows * NEW_TOKENS, seconds, details: serde_json::Value::Null })
}

/// A step with adapters of rank 16 on every linear layer.
fn adapted(
    model: Decoder,
    rows: &[SftRow],
    options: &Options,
    base: f64,
) -> Result<Measured, Box<dyn Error>> {
    let config = LoraConfig {
        rank: 16.try_into()?,
        alpha: Positive::new(32.0),
        targets: AdapterTargets::AllLinear,
        ..LoraConfig::default()
    };
    let model = model.with_adapter(Family::Llama, &config, &mut ChaCha8Rng::seed_from_u64(0))?;
    let parameters = model.adapter_parameters().trained_count;
    training(model, rows, options, Trained::Adapters { parameters }, base)
}

const MEBIBYTE: f64 = 1_048_576.0;

/// A line of `/proc/self/status`, in MiB; 0 where there is no such file.
fn memory_mb(name: &str) -> Result<f64, Box<dyn Error>> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0.0) };
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no such line")?;
    Ok(kibibytes.parse::<f64>()? / 1024.0)
}
