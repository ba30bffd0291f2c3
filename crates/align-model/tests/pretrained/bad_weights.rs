//! Weight files that are damaged, incomplete or of another model.

use std::{fs, path::Path};

use align_model::pretrained::{
    Checkpoint, LoadError, SafetensorsWeights, SaveOptions, SavedDtype, WeightSource,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::models::{
    Tensors, architecture, assert_says, config, distinct, edit, files, load, raw_file, saved, write_tensors,
};

const SHARDED: SaveOptions = SaveOptions { dtype: SavedDtype::Float32, max_shard_bytes: 700 };
const NAME: &str = "model.safetensors";

/// Opens a file of these bytes; it must be refused as malformed, by name.
#[track_caller]
fn refused(bytes: &[u8], says: &[&str]) {
    let directory = saved(&config("llama"));
    let path = directory.path().join(NAME);
    fs::write(&path, bytes).unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(matches!(&error, LoadError::Malformed { format: "safetensors", .. }), "{error:?}");
    assert_says(&error, &[path.to_str().unwrap(), "copy it again"]);
    assert_says(&error, says);
}

#[test]
fn truncated_files_at_every_kind_of_place() {
    let directory = saved(&config("llama"));
    let bytes = fs::read(directory.path().join(NAME)).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for (length, says) in [
        (0, "header too small"),
        (1, "header too small"),
        (7, "header too small"),
        (8, "invalid header length"),
        (header / 2, "invalid header length"),
        (header - 1, "invalid header length"),
        (header, "not fully covered"),
        (header + 1, "not fully covered"),
        (bytes.len() / 2, "not fully covered"),
        (bytes.len() - 1, "not fully covered"),
    ] {
        refused(&bytes[..length], &[says]);
    }
    refused(&[bytes.as_slice(), b"more"].concat(), &["not fully covered"]);
}

#[test]
fn headers_that_lie_about_their_length() {
    refused(&[&1_000u64.to_le_bytes()[..], b"{}"].concat(), &["invalid header length"]);
    refused(&[&200_000_000u64.to_le_bytes()[..], b"{}"].concat(), &["header too large"]);
    refused(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), &["header too large"]);
}

#[test]
fn headers_that_are_no_json_text() {
    refused(&raw_file(b"{\"a\xff\": 1}", b""), &["UTF-8"]);
    refused(&raw_file(b"not JSON", b""), &["invalid JSON in header"]);
    refused(&raw_file(b"[]", b""), &["invalid JSON in header"]);
    refused(
        &raw_file(br#"{"x": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}"#, &[0; 4]),
        &["JSON"],
    );
    refused(
        &raw_file(br#"{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#, &[0; 4]),
        &["JSON"],
    );
}

#[test]
fn offsets_that_overlap_or_leave_the_file() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        let entry =
            |[start, end]: [u64; 2]| json!({"dtype": "F32", "shape": [1], "data_offsets": [start, end]});
        raw_file(json!({"a": entry(a), "b": entry(b)}).to_string().as_bytes(), &[0; 8])
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("good.safetensors");
    fs::write(&path, two([0, 4], [4, 8])).unwrap();
    SafetensorsWeights::open_file(&path).unwrap();
    refused(&two([0, 4], [2, 6]), &["offset"]);
    refused(&two([0, 4], [0, 4]), &["offset"]);
    refused(&two([4, 0], [4, 8]), &["offset"]);
    refused(&two([0, 4], [8, 12]), &["offset"]);
    refused(&two([0, 4], [u64::MAX - 4, u64::MAX]), &["offset"]);
    let huge = json!({"a": {"dtype": "F32", "shape": [u64::MAX, 2], "data_offsets": [0, 8]}});
    refused(&raw_file(huge.to_string().as_bytes(), &[0; 8]), &["overflow"]);
}

#[test]
fn a_number_format_that_is_no_weight() {
    let directory = saved(&config("llama"));
    let bytes = fs::read(directory.path().join(NAME)).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&bytes[8..header]).unwrap().replacen("F32", "I32", 1);
    fs::write(directory.path().join(NAME), raw_file(text.as_bytes(), &bytes[header..])).unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(matches!(&error, LoadError::UnsupportedDtype { .. }), "{error:?}");
    assert_says(&error, &[NAME, "lm_head.weight", "I32", "F32, F16, BF16, F64", "convert it first"]);
}

#[test]
fn whole_numbers_that_nothing_reads_do_no_harm() {
    let directory = saved(&config("llama"));
    let path = directory.path().join("x.safetensors");
    let header = json!({"ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}).to_string();
    fs::write(&path, raw_file(header.as_bytes(), &[0; 8])).unwrap();
    let weights = SafetensorsWeights::open_file(&path).unwrap();
    assert_says(&weights.read("ids").unwrap_err(), &["x.safetensors", "ids", "I64"]);
}

#[test]
fn missing_extra_and_misshapen_tensors() {
    let change = |change: fn(&mut Tensors)| {
        let directory = saved(&config("llama"));
        edit(directory.path(), change);
        let error = load(directory.path()).unwrap_err();
        assert_says(&error, &[directory.path().to_str().unwrap(), "config.json"]);
        error
    };
    let error = change(|tensors| drop(tensors.remove("model.layers.1.mlp.up_proj.weight")));
    assert!(matches!(&error, LoadError::MissingTensor { .. }), "{error:?}");
    assert_says(&error, &["model.layers.1.mlp.up_proj.weight is missing"]);
    let error = change(|tensors| drop(tensors.insert("model.layers.2.extra".into(), (vec![1], vec![0.0]))));
    assert!(matches!(&error, LoadError::UnexpectedTensor { .. }), "{error:?}");
    assert_says(&error, &["model.layers.2.extra does not belong"]);
    let error = change(|tensors| tensors.get_mut("model.norm.weight").unwrap().0 = vec![2, 4]);
    assert!(matches!(&error, LoadError::Shape { .. }), "{error:?}");
    assert_says(&error, &["model.norm.weight", "[2, 4]", "[8]"]);
}

#[test]
fn absurd_sizes_are_compared_before_anything_is_allocated() {
    for key in ["vocab_size", "intermediate_size", "head_dim", "num_attention_heads", "hidden_size"] {
        let directory = saved(&config("llama"));
        let path = directory.path().join("config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["head_dim"] = json!(4);
        json[key] = json!(i32::MAX - 1);
        fs::write(&path, json.to_string()).unwrap();
        let error = load(directory.path()).unwrap_err();
        assert!(matches!(&error, LoadError::Shape { .. }), "{key}: {error:?}");
    }
}

/// A sharded model whose index is changed.
fn with_index(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, LoadError) {
    let architecture = architecture(&config("llama"));
    let directory = tempfile::tempdir().unwrap();
    architecture.save(&distinct(&architecture).0, directory.path(), SHARDED).unwrap();
    let path = directory.path().join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    fs::write(&path, index.to_string()).unwrap();
    let error = load(directory.path()).unwrap_err();
    (directory, error)
}

#[test]
fn an_index_that_points_elsewhere() {
    for outside in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "..", ".", "", "C:x"] {
        let (_directory, error) =
            with_index(|index| index["weight_map"]["model.norm.weight"] = json!(outside));
        assert!(matches!(&error, LoadError::Malformed { format: "safetensors index", .. }), "{error:?}");
        assert_says(
            &error,
            &["index.json", "model.norm.weight", &json!(outside).to_string(), "in the same directory"],
        );
    }
    let (_directory, error) = with_index(|index| index["weight_map"]["more"] = json!(5));
    assert_says(&error, &["index.json", "more", "5"]);
    let (_directory, error) = with_index(|index| index["weight_map"] = json!([]));
    assert_says(&error, &["index.json", "weight_map"]);
    let (_directory, error) =
        with_index(|index| index["weight_map"]["more"] = index["weight_map"]["lm_head.weight"].clone());
    assert_says(&error, &["index.json", "does not hold tensor more"]);
}

#[test]
fn shards_that_are_missing_or_repeat_a_tensor() {
    let (directory, error) =
        with_index(|index| index["weight_map"]["lm_head.weight"] = json!("model-9.safetensors"));
    assert!(matches!(&error, LoadError::MissingShard { .. }), "{error:?}");
    assert_says(&error, &["index.json", "model-9.safetensors", "copy it into the same directory"]);
    let names = ["lm_head.weight", "model.norm.weight"];
    let tensors: Tensors = names.map(|name| (name.to_string(), (vec![1], vec![0.0]))).into();
    write_tensors(&directory.path().join("model-9.safetensors"), &tensors);
    let error = load(directory.path()).unwrap_err();
    assert_says(&error, &["model.norm.weight", "also in another file"]);
}

#[test]
fn directories_without_weights_or_model() {
    let directory = saved(&config("llama"));
    fs::rename(directory.path().join(NAME), directory.path().join("pytorch_model.bin")).unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(matches!(&error, LoadError::NoWeights { .. }));
    assert_says(&error, &[directory.path().to_str().unwrap(), "have to be converted first"]);

    let missing = directory.path().join("nothing");
    let error = Checkpoint::open(&missing).unwrap_err();
    assert!(matches!(&error, LoadError::Io { action: "read", .. }));
    assert_says(&error, &[missing.to_str().unwrap()]);
}

#[test]
fn a_file_that_is_no_gguf() {
    let directory = saved(&config("llama"));
    for bytes in
        [&b""[..], b"GGU", b"GGML and then something else", &fs::read(directory.path().join(NAME)).unwrap()]
    {
        let path = directory.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(matches!(&error, LoadError::Malformed { format: "GGUF", .. }), "{error:?}");
        assert_says(&error, &[path.to_str().unwrap()]);
    }
}

/// Opens and reads everything a directory claims to hold.
fn read_all(directory: &Path) {
    if let Ok(weights) = SafetensorsWeights::open_directory(directory) {
        for name in weights.names() {
            let _ = weights.read(&name);
        }
    }
    let _ = load(directory);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn truncated_weights_never_panic(share in 0.0..1.0f64) {
        let directory = saved(&config("gpt_neox"));
        let path = directory.path().join(NAME);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
        prop_assert!(load(directory.path()).is_err());
    }

    #[test]
    fn damaged_headers_never_panic(changes in prop::collection::vec((0usize..900, any::<u8>()), 1..6)) {
        let directory = saved(&config("gpt2"));
        let path = directory.path().join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        fs::write(&path, bytes).unwrap();
        read_all(directory.path());
    }

    #[test]
    fn damaged_json_never_panics(place in 0usize..400, byte in any::<u8>(), index in any::<bool>()) {
        let architecture = architecture(&config("llama"));
        let directory = tempfile::tempdir().unwrap();
        architecture.save(&distinct(&architecture).0, directory.path(), SHARDED).unwrap();
        let name = if index { "model.safetensors.index.json" } else { "config.json" };
        let mut bytes = files(directory.path())[name].clone();
        let place = place % bytes.len();
        bytes[place] = byte;
        fs::write(directory.path().join(name), bytes).unwrap();
        read_all(directory.path());
    }
}
