//! Whatever a state holds comes back bit for bit.

use std::collections::BTreeMap;

use align_model::checkpoint::{State, StateTensor};
use proptest::prelude::*;

use crate::workplace::{open, place};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bits_survive(
        tensors in prop::collection::btree_map(
            "\\PC{1,12}",
            (prop::collection::vec(0usize..4, 0..4), any::<u32>()),
            0..6,
        ),
        values in prop::collection::btree_map("\\PC{0,12}", (any::<u64>(), -1e300f64..1e300), 0..6),
    ) {
        let values: BTreeMap<String, (u64, f64)> = values;
        // Bits of every kind, NaNs included, from a few random ones.
        let numbers = |shape: &[usize], seed: u32| -> Vec<f32> {
            let count: usize = shape.iter().product();
            (0..count as u32).map(|i| f32::from_bits(seed.wrapping_mul(2 * i + 1).rotate_left(i))).collect()
        };
        let mut state = State::new();
        for (name, (shape, seed)) in &tensors {
            state.insert_tensor(name.clone(), StateTensor::from_values(shape.clone(), numbers(shape, *seed)));
        }
        for (name, value) in &values {
            state.insert(name.clone(), value).unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).save(place(1, &[]), &state).unwrap();
        let mut loaded = open(directory.path()).load(1).unwrap();
        for (name, (shape, seed)) in &tensors {
            let tensor = loaded.take_tensor(name).unwrap();
            prop_assert_eq!(tensor.shape(), &shape[..]);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&tensor.read().unwrap()), bits(&numbers(shape, *seed)));
        }
        for (name, (integer, real)) in &values {
            let (a, b): (u64, f64) = loaded.take(name).unwrap();
            prop_assert_eq!((a, b.to_bits()), (*integer, real.to_bits()));
        }
        prop_assert!(loaded.finish().is_ok());
    }
}
