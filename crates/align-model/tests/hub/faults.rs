//! What goes wrong on the way and is mended, or is said.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use align_model::{
    hub::{Hub, HubError, HubSettings},
    pretrained::Checkpoint,
};

use crate::{
    server::{Fault, sha256},
    workplace::{Workplace, fails, golden, model, model_with_events},
};

fn place() -> Workplace {
    let place = Workplace::new();
    place.server.add_directory("owner/model", &golden("tiny/model"));
    place
}

fn weights() -> Vec<u8> {
    fs::read(golden("tiny/model/model.safetensors")).unwrap()
}

#[test]
fn a_dropped_connection_is_continued() {
    let place = place();
    for bytes in [1000, 200_000, 300_000, 1] {
        place.server.fault(&sha256(&weights()), Fault::DropAfter(bytes));
    }
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    assert_eq!(fs::read(fetched.unwrap().path.join("model.safetensors")).unwrap(), weights());
    let waited = events.iter().filter(|event| event.starts_with("waiting")).count();
    assert_eq!(waited, 4, "more often than three attempts, but each time further: {events:?}");
    let ranges: Vec<_> =
        place.server.seen().into_iter().filter(|seen| !seen.on_hub).map(|seen| seen.range).collect();
    let range = |start: usize| Some(format!("bytes={start}-"));
    assert_eq!(ranges, [None, range(1000), range(201_000), range(501_000), range(501_001)]);
}

#[test]
fn what_an_earlier_run_left_is_continued() {
    let place = place();
    for _ in 0..3 {
        place.server.fault(&sha256(&weights()), Fault::DropAfter(0));
    }
    fails(place.model("owner/model"), "the connection to ");
    assert!(place.visible().iter().all(|(path, _)| !path.ends_with("model.safetensors")));
    assert!(!place.cache.path().join("models--owner--model/refs/main").exists(), "main is not complete");
    let part = format!("models--owner--model/blobs/{}.incomplete", sha256(&weights()));
    fs::write(place.cache.path().join(part), &weights()[..5000]).unwrap();
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    assert_eq!(fs::read(fetched.unwrap().path.join("model.safetensors")).unwrap(), weights());
    assert!(events.contains(&format!("started model.safetensors 5000 of {}", weights().len())), "{events:?}");
}

#[test]
fn nothing_half_is_ever_visible() {
    let place = place();
    for bytes in [10, 100_000, 70_000] {
        for _ in 0..2 {
            place.server.fault(&sha256(&weights()), Fault::DropAfter(bytes));
        }
        _ = place.model("owner/model");
        for (path, content) in place.visible() {
            let whole = fs::read(golden("tiny/model").join(path.file_name().unwrap())).unwrap();
            assert!(content == whole, "{}", path.display());
        }
    }
}

#[test]
fn a_server_without_ranges_begins_again() {
    let place = place();
    place.server.fault(&sha256(&weights()), Fault::DropAfter(9000));
    place.server.fault(&sha256(&weights()), Fault::NoRanges);
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    assert_eq!(fs::read(fetched.unwrap().path.join("model.safetensors")).unwrap(), weights());
    assert!(events.contains(&"restarted".into()), "{events:?}");
}

#[test]
fn a_server_that_refuses_a_range_is_asked_for_everything() {
    let place = place();
    place.server.fault(&sha256(&weights()), Fault::DropAfter(9000));
    place.server.fault(&sha256(&weights()), Fault::Status(416, ""));
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    assert_eq!(fs::read(fetched.unwrap().path.join("model.safetensors")).unwrap(), weights());
    assert!(events.contains(&"restarted".into()), "{events:?}");
}

#[test]
fn damage_is_noticed_and_mended() {
    let place = place();
    place.server.fault(&sha256(&weights()), Fault::Damage);
    let (fetched, events) = model_with_events(&place.hub(), "owner/model");
    Checkpoint::open(&fetched.unwrap().path).unwrap();
    let said = format!(
        "waiting: model.safetensors of owner/model arrived damaged: expected SHA-256 {}",
        sha256(&weights())
    );
    assert!(events.iter().any(|event| event.starts_with(&said)), "{events:?}");
}

#[test]
fn damage_that_stays_is_an_error() {
    let place = place();
    for _ in 0..3 {
        place.server.fault(&sha256(&weights()), Fault::Damage);
    }
    fails(place.model("owner/model"), "model.safetensors of owner/model arrived damaged: expected SHA-256");
    assert!(!place.blobs("models--owner--model").iter().any(|name| name.starts_with(&sha256(&weights()))));
}

#[test]
fn a_leftover_of_something_else_is_replaced() {
    let place = place();
    let blobs = place.cache.path().join("models--owner--model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let whole = weights().len();
    for leftover in [vec![7; 4000], vec![7; whole], vec![7; whole + 1]] {
        fs::write(blobs.join(format!("{}.incomplete", sha256(&weights()))), leftover).unwrap();
        // A content of the wrong size is none.
        fs::write(blobs.join(sha256(&weights())), "half").unwrap();
        let path = place.model("owner/model").unwrap().path.join("model.safetensors");
        assert!(fs::read(&path).unwrap() == weights());
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let place = place();
    for status in [500, 503] {
        place.server.fault("/api/", Fault::Status(status, ""));
        place.server.fault("config.json", Fault::Status(status, ""));
    }
    place.model("owner/model").unwrap();
    for _ in 0..3 {
        place.server.fault("/api/models/owner/other", Fault::Status(502, ""));
    }
    fails(place.model("owner/other"), "answers 502: the server is in trouble");
}

#[test]
fn a_rate_limit_is_waited_for_within_reason() {
    let place = place();
    place.server.fault("/api/", Fault::Status(429, "retry-after: 1\r\n"));
    let begun = Instant::now();
    place.model("owner/model").unwrap();
    assert!(begun.elapsed().as_millis() >= 1000);
    place.server.fault("/api/models/owner/other", Fault::Status(429, "retry-after: 3600\r\n"));
    fails(place.model("owner/other"), "429, too many requests, for another 3600 seconds");
    for _ in 0..3 {
        place.server.fault("/api/models/owner/other", Fault::Status(429, ""));
    }
    fails(
        place.model("owner/other"),
        "answers model owner/other with 429, too many requests: try again later",
    );
}

#[test]
fn silence_counts_as_dropped() {
    let place = place();
    place.server.fault(&sha256(&weights()), Fault::Silence);
    let impatient = HubSettings { silence: Duration::from_millis(500), ..place.settings.clone() };
    let (fetched, events) = model_with_events(&Hub::new(impatient).unwrap(), "owner/model");
    fetched.unwrap();
    assert!(events.iter().any(|event| event.starts_with("waiting: the connection to ")), "{events:?}");
}

#[test]
fn a_hub_that_does_not_answer_is_not_needed_for_what_is_here() {
    let place = place();
    // Bound and dropped: nothing listens there.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nowhere}");
    let cut_off = Hub::new(HubSettings { endpoint, ..place.settings.clone() }).unwrap();
    assert!(matches!(model(&cut_off, "owner/model"), Err(HubError::Interrupted { .. })));
    let fetched = place.model("owner/model").unwrap();
    let (cached, events) = model_with_events(&cut_off, "owner/model");
    assert_eq!(cached.unwrap(), fetched);
    assert_eq!(events.last().unwrap(), "cached");
    let unknown = HubSettings { endpoint: "http://hub.invalid".into(), ..place.settings.clone() };
    fails(model(&Hub::new(unknown).unwrap(), "owner/other"), "cannot reach http://hub.invalid/api");
}

#[test]
fn something_else_than_a_hub_is_noticed() {
    let place = place();
    place.server.fault("/api/", Fault::Status(200, "content-type: text/html\r\n"));
    fails(place.model("owner/model"), "not an answer of the Hub");
}
