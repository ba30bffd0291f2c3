//! `kind: "arch"`: a small random model of each architecture against transformers.

use align_model::{
    causal_lm::{CausalLm, TokenBatch},
    pretrained::{Checkpoint, HostTensor, SafetensorsWeights, WeightSource},
};
use burn::tensor::Tensor;
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{ids, rows, text},
};

const TOLERANCE: Tolerance = Tolerance::Absolute(1e-4);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let device = super::device();
    let checkpoint = Checkpoint::open(&file.directory.join(text(&file.json, "model_dir"))).unwrap();
    let model = checkpoint.load(&device).unwrap();
    let arrays =
        SafetensorsWeights::open_file(&file.directory.join(text(&file.json, "arrays_file"))).unwrap();
    for case in file.json["cases"].as_array().unwrap() {
        check.case();
        let name = text(case, "name");
        let padded = Padded::read(&case["inputs"]);
        let states = model.hidden_states(&padded.batch);
        let logits = model.logits(states[states.len() - 1].clone());
        let mut compare = |key: &str, actual: Tensor<2>| {
            let Some(array) = case["arrays"][key].as_str() else { return };
            let expected = padded.real_positions(&arrays.read(array).unwrap());
            let actual: Vec<f64> = actual.into_data().iter::<f64>().collect();
            check.close(&format!("{name} {key}"), &actual, &expected, TOLERANCE);
        };
        compare("hidden_embed", states[0].clone());
        for (layer, state) in states[1..states.len() - 1].iter().enumerate() {
            compare(&format!("hidden_layer_{}", layer + 1), state.clone());
        }
        compare("hidden_final_norm", states[states.len() - 1].clone());
        compare("logits", logits.clone());
        check_argmax(check, name, case, &padded, logits);
    }
    for case in file.json["greedy"].as_array().unwrap() {
        check.case();
        let padded = Padded::read_prompt(case);
        let prompts = padded.sequences();
        let expected: Vec<Vec<u32>> = match &case["new_ids"][0] {
            Value::Array(_) => case["new_ids"].as_array().unwrap().iter().map(ids).collect(),
            _ => vec![ids(&case["new_ids"])],
        };
        let actual = super::greedy(&model, &prompts, expected[0].len());
        check.equal("greedy", &actual, &expected);
    }
    Ok(())
}

fn check_argmax(check: &mut Check, name: &str, case: &Value, padded: &Padded, logits: Tensor<2>) {
    let Some(expected) = case.get("argmax").filter(|v| v.is_array()) else { return };
    let expected: Vec<i64> = padded.select(&rows(expected));
    let actual: Vec<i64> = logits.argmax(1).into_data().iter::<i64>().collect();
    check.equal(&format!("{name} argmax"), &actual, &expected);
}

/// Rows of a padded batch, packed, and where their tokens stood.
pub struct Padded {
    pub batch: TokenBatch,
    /// (row, column) of every real token.
    cells: Vec<(usize, usize)>,
}

impl Padded {
    /// Reads `input_ids`, `attention_mask` and `position_ids`.
    pub fn read(inputs: &Value) -> Self {
        Self::new(&rows(&inputs["input_ids"]), &rows(&inputs["attention_mask"]))
    }

    fn read_prompt(case: &Value) -> Self {
        let two = |value: &Value| {
            if value[0].is_array() { rows(value) } else { rows(&Value::Array(vec![value.clone()])) }
        };
        Self::new(&two(&case["prompt_ids"]), &two(&case["attention_mask"]))
    }

    pub fn new(tokens: &[Vec<i64>], mask: &[Vec<i64>]) -> Self {
        let (mut batch, mut cells) = (TokenBatch::default(), Vec::new());
        for (row, (tokens, mask)) in tokens.iter().zip(mask).enumerate() {
            let columns: Vec<usize> = (0..tokens.len()).filter(|&c| mask[c] != 0).collect();
            let real: Vec<u32> = columns.iter().map(|&c| tokens[c] as u32).collect();
            batch.push(&real, 0);
            cells.extend(columns.into_iter().map(|column| (row, column)));
        }
        Self { batch, cells }
    }

    fn sequences(&self) -> Vec<Vec<u32>> {
        let mut rest = self.batch.tokens();
        let mut take = |length: &usize| {
            let (row, tail) = rest.split_at(*length);
            rest = tail;
            row.to_vec()
        };
        self.batch.lengths().iter().map(&mut take).collect()
    }

    /// The entries of real tokens of a `[rows, columns, …]` array.
    pub fn real_positions(&self, array: &HostTensor) -> Vec<f64> {
        let columns = array.shape[1];
        let width: usize = array.shape[2..].iter().product();
        let cell = |&(row, column): &(usize, usize)| {
            let start = (row * columns + column) * width;
            array.values[start..start + width].iter().map(|&v| f64::from(v))
        };
        self.cells.iter().flat_map(cell).collect()
    }

    fn select(&self, values: &[Vec<i64>]) -> Vec<i64> {
        self.cells.iter().map(|&(row, column)| values[row][column]).collect()
    }
}
