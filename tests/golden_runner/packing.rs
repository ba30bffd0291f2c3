//! `kind: "packing"`: samples packed into rows, and what a trainer is given of them.

use align_model::{
    causal_lm::TokenBatch,
    logprob::Targets,
    sft::{Packing, SftExample, SftRow},
};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile,
    file::{ids, rows, text},
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    for case in file.json["cases"].as_array().unwrap() {
        check.case();
        let name = format!("{} {} {}", text(case, "name"), text(case, "strategy"), case["seq_length"]);
        let examples = examples(case);
        let packing: Packing = serde_json::from_value(case["strategy"].clone()).unwrap();
        let length = (case["seq_length"].as_u64().unwrap() as usize).try_into().unwrap();
        let packed = packing.pack(&examples, length);
        compare_rows(&name, &packed, case["packed"].as_array().unwrap(), check);
        if let Some(batch) = case.get("padding_free_batch").filter(|batch| !batch.is_null()) {
            compare_batch(&name, &packed, batch, check);
        }
    }
    Ok(())
}

fn examples(case: &Value) -> Vec<SftExample> {
    let sequences = case["input_ids"].as_array().unwrap();
    let marks = case["completion_mask"].as_array();
    let example = |(index, sequence): (usize, &Value)| {
        let tokens = ids(sequence);
        let is_target = match marks {
            Some(marks) => ids(&marks[index]).into_iter().map(|mark| mark == 1).collect(),
            None => vec![true; tokens.len()],
        };
        SftExample { tokens, is_target }
    };
    sequences.iter().enumerate().map(example).collect()
}

fn compare_rows(name: &str, packed: &[SftRow], expected: &[Value], check: &mut Check) {
    check.equal(&format!("{name}: rows"), &packed.len(), &expected.len());
    for (index, (row, expected)) in packed.iter().zip(expected).enumerate() {
        let what = |column: &str| format!("{name}: row {index}: {column}");
        let tokens: Vec<u32> = row.sequences.iter().flat_map(|piece| piece.tokens.clone()).collect();
        check.equal(&what("input_ids"), &tokens, &ids(&expected["input_ids"]));
        if let Some(marks) = expected.get("completion_mask") {
            let targets: Vec<u32> =
                row.sequences.iter().flat_map(|piece| &piece.is_target).map(|&mark| mark.into()).collect();
            check.equal(&what("completion_mask"), &targets, &ids(marks));
        }
        let lengths: Vec<u32> = row.sequences.iter().map(|piece| piece.tokens.len() as u32).collect();
        match expected.get("seq_lengths") {
            Some(expected) => check.equal(&what("seq_lengths"), &lengths, &ids(expected)),
            None => check.equal(&what("sequences"), &lengths.len(), &1),
        }
    }
}

/// All rows in one pass: positions restart with each piece, and the first token of a piece is no target.
fn compare_batch(name: &str, packed: &[SftRow], expected: &Value, check: &mut Check) {
    let pieces = || packed.iter().flat_map(|row| &row.sequences);
    let sequences: Vec<&[u32]> = pieces().map(|piece| piece.tokens.as_slice()).collect();
    let batch = TokenBatch::from_sequences(&sequences);
    let selected: Vec<bool> = pieces().flat_map(|piece| piece.is_target.clone()).collect();
    let targets = Targets::selected(&batch, &selected);

    check.equal(&format!("{name}: input_ids"), batch.tokens(), &ids(&expected["input_ids"][0]));
    check.equal(&format!("{name}: position_ids"), batch.positions(), &ids(&expected["position_ids"][0]));
    let mut labels = vec![-100i64; batch.tokens().len()];
    for (&before, &token) in targets.positions().iter().zip(targets.tokens()) {
        labels[before + 1] = token.into();
    }
    check.equal(&format!("{name}: labels"), &labels, &rows(&expected["labels"])[0]);
    let mut boundaries: Vec<u32> = batch.starts().into_iter().map(|start| start as u32).collect();
    boundaries.push(batch.tokens().len() as u32);
    check.equal(&format!("{name}: cu_seq_lens_q"), &boundaries, &ids(&expected["cu_seq_lens_q"]));
    let longest = batch.lengths().iter().max().copied();
    let expected = expected["max_length_q"].as_u64().map(|length| length as usize);
    check.equal(&format!("{name}: max_length_q"), &longest, &expected);
}
