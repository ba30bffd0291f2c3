//! Solutions judged step by step.

use super::{Record, RecordError, Row, hint::missing};

/// A prompt and the steps of a solution, each right or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepwiseRecord {
    /// The column `prompt`.
    pub prompt: String,
    /// The column `completions`: the steps, at least one.
    pub completions: Vec<String>,
    /// The column `labels`: whether each step is right.
    pub labels: Vec<bool>,
}

impl Record for StepwiseRecord {
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        let needed = ["prompt", "completions", "labels"];
        if needed.iter().any(|column| !row.has(column)) {
            return Err(missing(row, &needed, "`prompt`, `completions` and `labels`"));
        }
        let prompt = row.take_text("prompt")?;
        let (completions, labels) = (row.take_texts("completions")?, row.take_bools("labels")?);
        if completions.is_empty() {
            return Err(RecordError::EmptyColumn { column: "completions" });
        }
        if completions.len() != labels.len() {
            return Err(RecordError::Lengths {
                first: "completions",
                first_length: completions.len(),
                second: "labels",
                second_length: labels.len(),
            });
        }
        Ok(Self { prompt, completions, labels })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(row: &Value) -> Result<StepwiseRecord, RecordError> {
        StepwiseRecord::from_row(&mut Row::new(row.as_object().unwrap().clone()))
    }

    #[test]
    fn every_step_has_a_label() {
        let expected = StepwiseRecord {
            prompt: "2 + 3 · 4".into(),
            completions: vec!["3 · 4 = 12".into(), "2 + 12 = 15".into()],
            labels: vec![true, false],
        };
        let row =
            json!({"prompt": "2 + 3 · 4", "completions": expected.completions, "labels": [true, false]});
        assert_eq!(record(&row).unwrap(), expected);
        let spelt = json!({
            "prompt": "2 + 3 · 4", "completions": json!(expected.completions).to_string(), "labels": "[1, 0]",
        });
        assert_eq!(record(&spelt).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            (
                json!({"prompt": "a", "completions": ["b"], "labels": [true, true]}),
                "column `completions` has 1 elements but `labels` has 2: they belong together",
            ),
            (
                json!({"prompt": "a", "completions": [], "labels": []}),
                "column `completions` is empty: drop the row",
            ),
            (
                json!({"prompt": "a", "completions": ["b", 1], "labels": [true, true]}),
                "element 2 of column `completions` is a number, expected a string",
            ),
            (
                json!({"prompt": "a", "completions": ["b"], "labels": [2]}),
                "element 1 of column `labels` is a number, expected true or false",
            ),
            (
                json!({"prompt": "a", "steps": ["b"], "labels": [true]}),
                "found the columns `prompt`, `steps`, `labels`, expected `prompt`, `completions` and `labels`: \
                 rename `steps` to `completions`",
            ),
        ];
        for (row, expected) in cases {
            assert_eq!(record(&row).unwrap_err().to_string(), expected);
        }
    }
}
