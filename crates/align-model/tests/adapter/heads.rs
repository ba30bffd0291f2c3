//! The heads of classifiers beside adapters.

use std::path::Path;

use align_model::{
    adapter::{AdapterError, AdapterKind, SavedAdapter, save_adapter, save_classifier_adapter},
    decoder::Decoder,
    pretrained::{Classifier, ClassifierKind, HostTensor},
};
use serde_json::{Value, json};

use crate::{
    bad_files::{change, rename},
    models::{adapted, architecture, family, lora, model},
};

const HIDDEN: usize = 8;

fn head(kind: ClassifierKind, labels: usize) -> Classifier {
    let values = |count: usize| (0..count).map(|index| index as f32 / 7.0 - 0.5).collect::<Vec<f32>>();
    let bias =
        (kind == ClassifierKind::Token).then(|| HostTensor { shape: vec![labels], values: values(labels) });
    let weight = HostTensor { shape: vec![labels, HIDDEN], values: values(labels * HIDDEN) };
    Classifier { kind, weight, bias, settings: None }
}

fn saved(model_type: &str, head: &Classifier) -> tempfile::TempDir {
    let backbone = adapted(model_type, &lora(AdapterKind::Lora)).without_head();
    let directory = tempfile::tempdir().unwrap();
    save_classifier_adapter(&backbone, head, directory.path(), Some("some/base")).unwrap();
    directory
}

fn read(directory: &Path, model_type: &str) -> Result<Option<Classifier>, AdapterError> {
    SavedAdapter::open(directory)?.classifier(&architecture(model_type))
}

fn apply(directory: &Path, to: Decoder) -> Result<Decoder, AdapterError> {
    SavedAdapter::open(directory)?.apply(to, family("llama"))
}

/// The names of a head's tensors in another version's words.
fn renamed(name: &str, within: &str) -> String {
    let (module, part) = name.rsplit_once('.').unwrap();
    if name.contains("lora_") { name.into() } else { format!("{module}.{within}.{part}") }
}

#[test]
fn a_head_is_read_as_it_was_written() {
    for model_type in ["llama", "gpt2", "gpt_neox"] {
        for written in [head(ClassifierKind::Sequence, 1), head(ClassifierKind::Token, 3)] {
            let directory = saved(model_type, &written);
            assert_eq!(read(directory.path(), model_type).unwrap(), Some(written.clone()));
            for within in ["modules_to_save", "modules_to_save.default"] {
                let directory = saved(model_type, &written);
                rename(directory.path(), |name| Some(renamed(name, within)));
                assert_eq!(read(directory.path(), model_type).unwrap(), Some(written.clone()), "{within}");
            }
            // Of an adapter that was made without a task, the tensors tell.
            change(directory.path(), &json!({"task_type": null, "modules_to_save": ["classifier", "score"]}));
            assert_eq!(read(directory.path(), model_type).unwrap(), Some(written));
        }
    }
}

#[test]
fn settings_of_a_head_are_kept() {
    let written =
        Classifier { settings: Some(json!({"thresholds": [0.5]})), ..head(ClassifierKind::Sequence, 1) };
    assert_eq!(read(saved("llama", &written).path(), "llama").unwrap(), Some(written));
}

#[test]
fn an_adapter_of_a_language_model_has_no_head() {
    let directory = tempfile::tempdir().unwrap();
    save_adapter(&adapted("llama", &lora(AdapterKind::Lora)), directory.path(), None).unwrap();
    assert_eq!(read(directory.path(), "llama").unwrap(), None);
    // PEFT names heads that a model does not have.
    change(directory.path(), &json!({"modules_to_save": ["score"]}));
    apply(directory.path(), model("llama")).unwrap();
}

#[test]
fn a_head_stands_beside_a_decoder_without_one() {
    let directory = saved("llama", &head(ClassifierKind::Sequence, 1));
    apply(directory.path(), model("llama").without_head()).unwrap();
    let refused = apply(directory.path(), model("llama")).unwrap_err();
    assert!(
        matches!(&refused, AdapterError::ClassifierHead { tensor, .. } if tensor.ends_with("score.weight"))
    );
}

#[test]
fn what_a_head_lacks_is_named() {
    let says = |change: &dyn Fn(&Path), expected: &str| {
        let directory = saved("llama", &head(ClassifierKind::Token, 2));
        change(directory.path());
        let message = read(directory.path(), "llama").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let without_head =
        |directory: &Path| rename(directory, |name| name.contains("lora_").then(|| name.into()));
    says(&without_head, "base_model.model.score.weight is missing");
    let mixed = |directory: &Path| {
        rename(directory, |name| {
            Some(match name {
                "base_model.model.score.bias" => "base_model.model.score.weight".to_owned(),
                "base_model.model.score.weight" => "base_model.model.score.bias".to_owned(),
                other => other.to_owned(),
            })
        });
    };
    says(&mixed, "base_model.model.score.weight has shape [2]");
    let config = |changes: Value| move |directory: &Path| change(directory, &changes);
    says(&config(json!({"modules_to_save": "score"})), "modules_to_save");
}
