//! What there is not, or not for everyone.

use align_model::hub::HubError;

use crate::{
    server::{GOOD_TOKEN, STRANGERS_TOKEN},
    workplace::{Workplace, dataset, fails, golden, model},
};

fn place() -> Workplace {
    let place = Workplace::new();
    for name in ["owner/model", "private/model", "gated/model"] {
        place.server.add_directory(name, &golden("tiny/model"));
    }
    place
}

#[test]
fn what_does_not_exist() {
    let place = place();
    fails(place.model("owner/none"), "has no model owner/none: check the name; a private one");
    fails(dataset(&place.hub(), "owner/none"), "has no dataset owner/none: check the name");
    fails(place.model("owner/model@v2"), "has no model owner/model@v2: check the branch, tag or commit");
    fails(place.model("owner/model:none.gguf"), "owner/model: there is no file `none.gguf`");
    place.model("owner/model@v1.0").unwrap();
    place.server.add("owner/bin", &[("config.json", b"{}"), ("pytorch_model.bin", b"")]);
    fails(
        place.model("owner/bin"),
        "owner/bin has no model.safetensors, no model.safetensors.index.json and no GGUF",
    );
}

#[test]
fn without_a_token() {
    let place = place();
    for name in ["private/model", "gated/model", "missing/model"] {
        let error = place.model(name).unwrap_err();
        assert!(matches!(error, HubError::NoToken { status: 401, .. }), "{error}");
        let said = format!(
            "does not show model {name} to everyone (401): it does not exist, or it is private or gated; check the name, or set HF_TOKEN"
        );
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[test]
fn with_a_token() {
    let place = place();
    model(&place.with_token(GOOD_TOKEN), "gated/model").unwrap();
    let refused = model(&place.with_token(STRANGERS_TOKEN), "gated/model");
    assert!(matches!(refused, Err(HubError::Forbidden { .. })));
    fails(refused, "does not let the token read model gated/model (403): accept the conditions");
    let refused = model(&place.with_token("hf_expired"), "owner/model");
    assert!(matches!(refused, Err(HubError::BadToken { .. })));
    fails(refused, "does not accept the token for model owner/model (401)");
    fails(model(&place.with_token(GOOD_TOKEN), "missing/model"), "has no model missing/model");
}

#[test]
fn offline_and_not_cached() {
    let place = place();
    let hub = place.offline();
    fails(model(&hub, "owner/model"), "model owner/model is not in the cache");
    assert!(place.server.seen().is_empty(), "nothing is asked");
    let snapshot = place.model("owner/model").unwrap().path;
    model(&hub, "owner/model").unwrap();
    fails(model(&hub, "owner/model@v1.0"), "model owner/model@v1.0 is not in the cache");
    fails(model(&hub, "owner/model:x.gguf"), "x.gguf of model owner/model is not in the cache");
    for file in ["model.safetensors", "config.json"] {
        let away = snapshot.join("away");
        std::fs::rename(snapshot.join(file), &away).unwrap();
        let said = format!("{file} of model owner/model is not in the cache ");
        fails(model(&hub, "owner/model"), &said);
        fails(model(&hub, "owner/model"), "the Hub is switched off (HF_HUB_OFFLINE)");
        std::fs::rename(away, snapshot.join(file)).unwrap();
    }
}

#[test]
fn offline_with_a_shard_missing() {
    let place = place();
    place.server.add_directory("owner/sharded", &golden("arch_llama_sharded_bf16"));
    let snapshot = place.model("owner/sharded").unwrap().path;
    std::fs::remove_file(snapshot.join("model-00002-of-00003.safetensors")).unwrap();
    let said = "model-00002-of-00003.safetensors of model owner/sharded is not in the cache";
    fails(model(&place.offline(), "owner/sharded"), said);
}
