//! Learning rates against `transformers.get_scheduler`.

use align_model::train::Schedule;
use serde_json::{Map, Value, json};

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, number, text},
};

const TOLERANCE: Tolerance = Tolerance::Mixed { relative: 1e-12, absolute: 1e-18 };

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    for case in file.json["cases"].as_array().unwrap() {
        check.case();
        let what = format!("{} {}", text(case, "schedule"), case["options"]);
        let schedule =
            match schedule(text(case, "schedule"), case["num_warmup_steps"].as_u64(), &case["options"]) {
                Ok(schedule) => schedule,
                Err(error) => {
                    check.fail(format!("{what}: {error}"));
                    continue;
                }
            };
        let total = case["num_training_steps"].as_u64().unwrap();
        let base = number(&case["learning_rate"]);
        let expected = flat(&case["learning_rates"]);
        let rates: Vec<f64> =
            (0..expected.len() as u64).map(|step| schedule.learning_rate(step, total, base)).collect();
        check.close(&what, &rates, &expected, TOLERANCE);
        let after = schedule.learning_rate(expected.len() as u64, total, base);
        check.close_scalar(&format!("{what} after"), after, number(&case["after_last_step"]), TOLERANCE);
    }
    Ok(())
}

/// The schedule as a user would write it; what it does not know of the case's options is an error.
pub(super) fn schedule(
    kind: &str,
    warmup_steps: Option<u64>,
    options: &Value,
) -> Result<Schedule, serde_json::Error> {
    let mut written = Map::new();
    written.insert("kind".into(), kind.into());
    if let Some(steps) = warmup_steps {
        written.insert("warmup".into(), json!({ "steps": steps }));
    }
    for (name, value) in options.as_object().into_iter().flatten() {
        let (name, value) = match name.as_str() {
            "min_lr" => ("floor", json!({ "learning_rate": value })),
            "min_lr_rate" => ("floor", json!({ "ratio": value })),
            "num_decay_steps" => ("decay", json!({ "steps": value })),
            "num_stable_steps" => ("stable", json!({ "steps": value })),
            other => (other, value.clone()),
        };
        written.insert(name.into(), value);
    }
    serde_json::from_value(Value::Object(written))
}
