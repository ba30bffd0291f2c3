//! Saving over what is there.

use std::{fs, path::Path};

use align_model::pretrained::{Checkpoint, LoadError, SaveOptions, SavedDtype};
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::models::{architecture, assert_says, config, distinct, edit, files, load, saved};

const SHARDED: SaveOptions = SaveOptions { dtype: SavedDtype::Float32, max_shard_bytes: 700 };

fn names(directory: &Path) -> Vec<String> {
    files(directory).into_keys().collect()
}

#[test]
fn a_single_file_replaces_shards_and_their_index() {
    let architecture = architecture(&config("llama"));
    let (model, _) = distinct(&architecture);
    let directory = tempfile::tempdir().unwrap();
    architecture.save(&model, directory.path(), SHARDED).unwrap();
    assert!(names(directory.path()).iter().any(|name| name.starts_with("model-00001-of-")));
    fs::write(directory.path().join("model-of-my-own.safetensors"), "kept").unwrap();
    architecture.save(&model, directory.path(), SaveOptions::default()).unwrap();
    assert_eq!(names(directory.path()), ["config.json", "model-of-my-own.safetensors", "model.safetensors"]);
    load(directory.path()).unwrap();
}

#[test]
fn shards_replace_a_single_file_and_other_shards() {
    let architecture = architecture(&config("llama"));
    let (model, _) = distinct(&architecture);
    let (directory, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    architecture.save(&model, directory.path(), SaveOptions::default()).unwrap();
    for max_shard_bytes in [300, 1500, 700] {
        architecture.save(&model, directory.path(), SaveOptions { max_shard_bytes, ..SHARDED }).unwrap();
    }
    architecture.save(&model, fresh.path(), SHARDED).unwrap();
    assert_eq!(files(directory.path()), files(fresh.path()));
}

#[test]
fn shards_keep_to_their_limit_unless_one_tensor_is_larger() {
    let architecture = architecture(&config("gpt2"));
    let directory = tempfile::tempdir().unwrap();
    architecture.save(&distinct(&architecture).0, directory.path(), SHARDED).unwrap();
    let files = files(directory.path());
    let index: Value = serde_json::from_slice(&files["model.safetensors.index.json"]).unwrap();
    let mut total = 0;
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let size: usize = tensors.iter().map(|(_, view)| view.data().len()).sum();
        assert!(size <= 700 || tensors.len() == 1, "{name} holds {size} bytes");
        assert!(tensors.names().iter().all(|&tensor| index["weight_map"][tensor] == name.as_str()));
        total += size;
    }
    assert_eq!(index["metadata"]["total_size"], total);
}

#[test]
fn a_model_saved_over_the_directory_it_came_from_is_intact() {
    let directory = saved(&config("gpt_neox"));
    let before = files(directory.path());
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let model = checkpoint.load(&Device::flex()).unwrap();
    checkpoint.save(&model, directory.path(), SaveOptions::default()).unwrap();
    assert_eq!(files(directory.path()), before);
    // The old files stay mapped: the checkpoint reads what it was opened with.
    checkpoint.load(&Device::flex()).unwrap();
}

#[test]
fn generation_settings_go_along() {
    let directory = saved(&config("llama"));
    let settings = json!({"eos_token_id": [2, 7], "temperature": 0.6});
    fs::write(directory.path().join("generation_config.json"), settings.to_string()).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.end_tokens(), [2, 7]);
    let copy = tempfile::tempdir().unwrap();
    checkpoint.save(&checkpoint.load(&Device::flex()).unwrap(), copy.path(), SaveOptions::default()).unwrap();
    let saved: Value = serde_json::from_slice(&files(copy.path())["generation_config.json"]).unwrap();
    assert_eq!(saved, settings);
}

#[test]
fn end_tokens_come_from_the_config_where_generation_settings_name_none() {
    let with_eos = |eos: Value| {
        let mut config = config("llama");
        config["eos_token_id"] = eos;
        let directory = saved(&config);
        fs::write(directory.path().join("generation_config.json"), "{}").unwrap();
        Checkpoint::open(directory.path()).unwrap().end_tokens()
    };
    assert_eq!(with_eos(json!(2)), [2]);
    assert_eq!(with_eos(json!([2, 3])), [2, 3]);
    assert_eq!(with_eos(Value::Null), [0; 0]);
}

/// A file in the way of the `.part` file: writing fails as on a full disk, also for a user who may write anywhere.
fn block(directory: &Path, name: &str) {
    fs::create_dir(directory.join(format!("{name}.part"))).unwrap();
}

#[test]
fn a_failed_save_leaves_the_old_model_alone() {
    let architecture = architecture(&config("llama"));
    let (other, _) = distinct(&architecture);
    let sharded = tempfile::tempdir().unwrap();
    architecture.save(&other, sharded.path(), SHARDED).unwrap();
    let names = names(sharded.path());
    let shard = names.iter().rfind(|name| name.contains("-of-")).unwrap();
    for blocked in ["model.safetensors", "config.json", shard] {
        let directory = saved(&config("llama"));
        edit(directory.path(), |tensors| tensors.get_mut("model.norm.weight").unwrap().1.fill(3.0));
        let before = files(directory.path());
        block(directory.path(), blocked);
        let sharded = blocked.contains("-of-");
        let options = if sharded { SHARDED } else { SaveOptions::default() };
        let error = architecture.save(&other, directory.path(), options).unwrap_err();
        assert!(matches!(error, LoadError::Io { .. }), "{error:?}");
        assert_says(&error, &["cannot write", directory.path().join(blocked).to_str().unwrap()]);
        fs::remove_dir(directory.path().join(format!("{blocked}.part"))).unwrap();
        assert_eq!(files(directory.path()), before, "{blocked}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = saved(&config("llama"));
    let before = files(directory.path());
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let allowed_anyway = fs::write(directory.path().join("probe"), "").is_ok();
    let architecture = architecture(&config("llama"));
    let result = architecture.save(&distinct(&architecture).0, directory.path(), SaveOptions::default());
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if allowed_anyway {
        // Run as root, for whom no directory is read-only.
        return;
    }
    assert_says(&result.unwrap_err(), &["cannot write", "model.safetensors"]);
    assert_eq!(files(directory.path()), before);
}

#[cfg(unix)]
#[test]
fn weights_get_the_permissions_of_other_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = saved(&config("llama"));
    let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("model.safetensors"), mode("config.json"));
}

#[test]
fn a_path_below_a_file_cannot_be_saved_to() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let architecture = architecture(&config("llama"));
    let path = file.path().join("model");
    let error = architecture.save(&distinct(&architecture).0, &path, SaveOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Io { action: "create", .. }), "{error:?}");
    assert_says(&error, &[path.to_str().unwrap()]);
}

#[test]
fn a_number_too_large_for_the_format_is_refused() {
    let directory = saved(&config("llama"));
    edit(directory.path(), |tensors| tensors.get_mut("model.norm.weight").unwrap().1[3] = 7e4);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let model = checkpoint.load(&Device::flex()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let save = |dtype| checkpoint.save(&model, copy.path(), SaveOptions { dtype, ..SaveOptions::default() });
    let error = save(SavedDtype::Float16).unwrap_err();
    assert!(matches!(error, LoadError::Overflow { .. }));
    assert_says(&error, &["model.norm.weight", "70000", "float16", "save as bfloat16"]);
    assert!(files(copy.path()).is_empty());
    save(SavedDtype::Bfloat16).unwrap();
}

#[test]
#[should_panic(expected = "built with")]
fn a_model_of_another_shape_is_a_mistake() {
    let (model, _) = distinct(&architecture(&config("llama")));
    let _ = architecture(&config("qwen2")).save(&model, Path::new("unused"), SaveOptions::default());
}
