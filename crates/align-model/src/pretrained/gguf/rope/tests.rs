//! Recovering Llama 3's scaling from its table.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Rotary, scaling};
use crate::pretrained::LoadError;
use crate::pretrained::gguf::metadata::Metadata;

fn recovered(divisors: &[f32], theta: f64) -> Result<Value, LoadError> {
    let metadata = Metadata::new(Path::new("model.gguf"), HashMap::new());
    let rotary = Rotary { head_size: divisors.len() as u64 * 2, theta, divisors: Some(divisors) };
    scaling(&metadata, "llama", &rotary)
}

/// The table as llama.cpp's converter computes it.
fn table(factor: f64, context: f64, size: u32, theta: f64) -> Vec<f32> {
    let divisor = |index: u32| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(f64::from(2 * index) / f64::from(size));
        if wavelength < context / 4.0 {
            1.0
        } else if wavelength > context {
            factor
        } else {
            let smooth = (context / wavelength - 1.0) / 3.0;
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..size / 2).map(|index| divisor(index) as f32).collect()
}

#[test]
fn the_parameters_are_found() {
    for (factor, context, size) in [(8.0, 8192, 128), (32.0, 8192, 64), (8.0, 64, 16)] {
        let found = recovered(&table(factor, f64::from(context), size, 500_000.0), 500_000.0).unwrap();
        let expected = json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": context,
        });
        assert_eq!(found, expected);
    }
}

#[test]
fn other_tables_are_refused() {
    assert_eq!(recovered(&[1.0; 8], 10_000.0).unwrap(), Value::Null);
    let error = recovered(&[1.0, 3.0, 2.0, 8.0], 10_000.0).unwrap_err();
    assert!(matches!(error, LoadError::Config { key, .. } if key == "rope_freqs.weight"));
}
