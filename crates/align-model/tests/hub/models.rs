//! Models that arrive as they should.

use std::{fs, thread};

use align_model::{
    device::DeviceName,
    hub::{HubSettings, RepositoryKind},
    pretrained::{Checkpoint, SaveOptions},
};

use crate::{
    server::{COMMIT, GOOD_TOKEN, sha256},
    workplace::{Workplace, fails, golden, model, model_with_events, reference},
};

#[test]
fn a_model_loads_as_from_its_directory() {
    for name in ["tiny/model", "arch_llama_sharded_bf16"] {
        let place = Workplace::new();
        place.server.add_directory("owner/model", &golden(name));
        let fetched = place.model("owner/model").unwrap();
        assert_eq!(fetched.commit, COMMIT);
        let device = DeviceName::FLEX.open().unwrap();
        let saved = |path: &std::path::Path| {
            let (checkpoint, out) = (Checkpoint::open(path).unwrap(), tempfile::tempdir().unwrap());
            let model = checkpoint.load(&device).unwrap();
            checkpoint.save(&model, out.path(), SaveOptions::default()).unwrap();
            fs::read(out.path().join("model.safetensors")).unwrap()
        };
        assert_eq!(saved(&fetched.path), saved(&golden(name)), "{name}");
        assert_eq!(place.offline().model(&reference("owner/model"), &mut |_| {}).unwrap(), fetched);
    }
}

#[test]
fn only_what_is_needed_is_downloaded_and_only_once() {
    let place = Workplace::new();
    place.server.add_directory("owner/model", &golden("tiny/model"));
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    let names: Vec<String> = fs::read_dir(fetched.unwrap().path)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let size = fs::metadata(golden("tiny/model/model.safetensors")).unwrap().len();
    assert_eq!(events.last().unwrap(), "finished model.safetensors", "weights are the last");
    assert!(events.contains(&format!("started model.safetensors 0 of {size}")), "{events:?}");
    place.server.seen();
    let (_, events) = model_with_events(&place.hub(), "owner/model");
    assert_eq!(events, [""; 0]);
    assert_eq!(place.server.seen().len(), 1, "only the listing is asked for");
}

#[test]
fn the_cache_has_the_usual_layout() {
    let place = Workplace::new();
    place.server.add_directory("owner/model", &golden("tiny/model"));
    place.model("owner/model@refs/pr/1").unwrap();
    place.model("owner/model").unwrap();
    let base = place.cache.path().join("models--owner--model");
    for reference in ["refs/main", "refs/refs/pr/1"] {
        assert_eq!(fs::read_to_string(base.join(reference)).unwrap(), COMMIT);
    }
    let weights = fs::read(golden("tiny/model/model.safetensors")).unwrap();
    let blob = base.join("blobs").join(sha256(&weights));
    assert_eq!(fs::read(&blob).unwrap(), weights);
    let linked = base.join("snapshots").join(COMMIT).join("model.safetensors");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(&linked).unwrap(),
        std::path::PathBuf::from(format!("../../blobs/{}", sha256(&weights)))
    );
    assert_eq!(fs::canonicalize(linked).unwrap(), fs::canonicalize(blob).unwrap());
}

#[test]
fn what_others_have_downloaded_is_used() {
    let place = Workplace::new();
    place.server.add_directory("owner/model", &golden("tiny/model"));
    let weights = fs::read(golden("tiny/model/model.safetensors")).unwrap();
    let blobs = place.cache.path().join("models--owner--model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(&weights)), &weights).unwrap();
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    fetched.unwrap();
    assert!(!events.iter().any(|event| event.contains("model.safetensors")), "{events:?}");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let place = Workplace::new();
    place.server.add_directory("private/model", &golden("tiny/model"));
    let hub = place.with_token(GOOD_TOKEN);
    model(&hub, "private/model").unwrap();
    let seen = place.server.seen();
    assert!(seen.iter().any(|seen| !seen.on_hub), "large files lie elsewhere");
    for seen in seen {
        assert_eq!(seen.token.as_deref() == Some(GOOD_TOKEN), seen.on_hub, "{seen:?}");
    }
}

#[test]
fn a_renamed_repository_is_found() {
    let place = Workplace::new();
    place.server.add_directory("new/model", &golden("tiny/model"));
    Checkpoint::open(&place.model("old/model").unwrap().path).unwrap();
}

#[test]
fn a_gguf_file_is_a_model() {
    let place = Workplace::new();
    let (small, large) = (vec![1u8; 100], vec![2u8; 20_000]);
    place
        .server
        .add("owner/gguf", &[("m-q4_0.gguf", &small), ("sub/m-q8_0.gguf", &large), ("README.md", b"")]);
    place.server.add("owner/one", &[("m.gguf", &large), ("config.json", b"{}")]);
    fails(place.model("owner/gguf"), "name one as owner/gguf:NAME, of m-q4_0.gguf, sub/m-q8_0.gguf");
    for (name, content) in
        [("owner/gguf:sub/m-q8_0.gguf", &large), ("owner/gguf:Q4_0", &small), ("owner/one", &large)]
    {
        let path = place.model(name).unwrap().path;
        assert!(path.extension().unwrap() == "gguf");
        assert_eq!(fs::read(path).unwrap(), *content, "{name}");
        model(&place.offline(), name).unwrap();
    }
    let file = place.hub().file(RepositoryKind::Model, &reference("owner/one"), "config.json", &mut |_| {});
    assert_eq!(fs::read(file.unwrap()).unwrap(), b"{}");
}

#[test]
fn two_at_a_time_download_once() {
    let place = Workplace::new();
    place.server.add_directory("owner/model", &golden("arch_llama_sharded_bf16"));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| place.model("owner/model").unwrap())).collect();
        for thread in threads {
            Checkpoint::open(&thread.join().unwrap().path)
                .unwrap()
                .load(&DeviceName::FLEX.open().unwrap())
                .unwrap();
        }
    });
    let seen = place.server.seen();
    let bodies = seen.iter().filter(|seen| !seen.on_hub && seen.method == "GET").count();
    assert_eq!(bodies, 3, "each shard once");
}

#[test]
fn an_empty_file_is_a_file() {
    let place = Workplace::new();
    place.server.add("owner/empty", &[("m.gguf", b"")]);
    assert_eq!(fs::read(place.model("owner/empty").unwrap().path).unwrap(), b"");
}

#[test]
fn a_slash_behind_the_endpoint_does_no_harm() {
    let place = Workplace::new();
    place.server.add_directory("owner/model", &golden("tiny/model"));
    let endpoint = format!("{}/", place.server.endpoint);
    let hub = align_model::hub::Hub::new(HubSettings { endpoint, ..place.settings.clone() }).unwrap();
    model(&hub, "owner/model").unwrap();
}
