//! Names of the Hub, with a cache as other programs fill it.

use std::{fs, process::Command};

use crate::workplace::Workplace;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The workplace's model and data in a cache, as `owner/model` and `owner/data`.
fn cached() -> Workplace {
    let place = Workplace::new();
    let snapshot = |folder: &str| {
        let base = place.path("hub").join(folder);
        fs::create_dir_all(base.join("refs")).unwrap();
        fs::write(base.join("refs/main"), COMMIT).unwrap();
        let snapshot = base.join("snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        snapshot
    };
    let model = snapshot("models--owner--model");
    for name in place.names("model") {
        fs::copy(place.path("model").join(&name), model.join(name)).unwrap();
    }
    let data = snapshot("datasets--owner--data");
    fs::create_dir(data.join("data")).unwrap();
    fs::copy(place.path("data.jsonl"), data.join("data/train.jsonl")).unwrap();
    place
}

/// Runs the command offline; the arguments are parted at spaces.
fn offline(place: &Workplace, arguments: &str) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_align"));
    command.args(arguments.split(' ')).current_dir(place.path("."));
    let said = command.env("HF_HUB_CACHE", "hub").env("HF_HUB_OFFLINE", "1").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (said.status.success(), text(said.stdout), text(said.stderr))
}

#[test]
fn a_cached_model_answers_offline() {
    let place = cached();
    let (done, named, err) = offline(&place, "generate --model owner/model --prompt cat --greedy");
    assert!(done, "{err}");
    assert_eq!(named, place.align("generate --model model --prompt cat --greedy").succeeded());
}

#[test]
fn cached_data_trains_offline() {
    let place = cached();
    let run = "sft --config run.toml --set sft.duration={steps=1} --model owner/model --data owner/data";
    let (done, out, err) = offline(&place, run);
    assert!(done, "{err}");
    assert!(out.contains("owner/data: 3 samples"), "{out}");
}

#[test]
fn what_is_not_cached_is_named() {
    let place = cached();
    let (done, _, err) = offline(&place, "generate --model owner/other --prompt cat");
    assert!(!done);
    assert!(
        err.starts_with("error: there is no model owner/other on this machine, and the Hub does not"),
        "{err}"
    );
    assert!(
        err.contains(
            "because: model owner/other is not in the cache hub, and the Hub is switched off (HF_HUB_OFFLINE)"
        ),
        "{err}"
    );
    fs::remove_file(place.path("hub/models--owner--model/snapshots").join(COMMIT).join("model.safetensors"))
        .unwrap();
    let (_, _, err) = offline(&place, "generate --model owner/model --prompt cat");
    assert!(err.contains("model.safetensors of model owner/model is not in the cache"), "{err}");
    let (_, _, err) = offline(&place, "generate --model ./owner/model --prompt cat");
    assert!(err.starts_with("error: cannot open the model ./owner/model\n  because: cannot read"), "{err}");
}
