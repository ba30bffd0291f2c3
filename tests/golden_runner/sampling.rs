//! Processed distributions against the logits processors of `transformers`.

use align_model::generate::SamplingConfig;
use serde_json::{Map, Value, json};

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, ids},
};

const LOGITS: Tolerance = Tolerance::Mixed { relative: 1e-6, absolute: 1e-6 };
const PROBABILITIES: Tolerance = Tolerance::Absolute(1e-6);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    for case in file.json["cases"].as_array().unwrap() {
        check.case();
        let input = case["input"].as_str().unwrap_or("logits");
        let what = format!("{input} {}", case["options"]);
        let config = match config(case) {
            Ok(config) => config,
            Err(error) => {
                check.fail(format!("{what}: {error}"));
                continue;
            }
        };
        for (row, expected) in case["logits"].as_array().unwrap().iter().enumerate() {
            let logits: Vec<f32> = flat(&file.json[input][row]).into_iter().map(|x| x as f32).collect();
            let history = ids(&file.json["history"][row]);
            let distribution = config.distribution(&logits, &history).unwrap();
            let mut remaining = vec![f64::NEG_INFINITY; logits.len()];
            let mut probabilities = vec![0.0; logits.len()];
            for kept in distribution.kept() {
                remaining[kept.token as usize] = f64::from(kept.logit);
                probabilities[kept.token as usize] = kept.probability;
            }
            let what = format!("{what} row {row}");
            check.equal(&what, &(distribution.kept().len() as u64), &case["kept"][row].as_u64().unwrap());
            check.close(&what, &remaining, &flat(expected), LOGITS);
            check.close(&what, &probabilities, &flat(&case["probabilities"][row]), PROBABILITIES);
        }
    }
    Ok(())
}

/// The configuration as a user would write it; an option or a processor that it does not know is an error.
fn config(case: &Value) -> Result<SamplingConfig, String> {
    const KNOWN: [&str; 9] = [
        "RepetitionPenaltyLogitsProcessor",
        "NoRepeatNGramLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
        "TypicalLogitsWarper",
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
    ];
    for processor in case["processors"].as_array().into_iter().flatten() {
        if !KNOWN.iter().any(|known| processor == known) {
            return Err(format!("no such processor here: {processor}"));
        }
    }
    let mut outer = Map::new();
    let mut sampling = Map::new();
    sampling.insert("kind".into(), json!("sample"));
    for (name, value) in case["options"].as_object().unwrap() {
        let target = match name.as_str() {
            "repetition_penalty" | "no_repeat_ngram_size" => &mut outer,
            _ => &mut sampling,
        };
        target.insert(name.clone(), value.clone());
    }
    outer.insert("decoding".into(), Value::Object(sampling));
    serde_json::from_value(Value::Object(outer)).map_err(|error| error.to_string())
}
