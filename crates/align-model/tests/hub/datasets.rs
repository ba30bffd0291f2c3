//! Datasets: which files, and that they are the right ones.

use std::fs;

use align_model::data::{SftRecord, read_jsonl};

use crate::{
    server::COMMIT,
    workplace::{Workplace, dataset, fails},
};

const TRAIN: &[u8] = b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
const TEST: &[u8] = b"{\"text\": \"three\"}\n";

fn place() -> Workplace {
    let place = Workplace::new();
    place.server.add(
        "datasets/owner/data",
        &[("README.md", b"# Data"), ("data/test.jsonl", TEST), ("data/train.jsonl", TRAIN)],
    );
    place
}

#[test]
fn the_training_split_is_read() {
    let place = place();
    let fetched = dataset(&place.hub(), "owner/data").unwrap();
    assert_eq!(fetched.commit, COMMIT);
    let [file] = &fetched.files[..] else { panic!("{fetched:?}") };
    assert!(file.ends_with("data/train.jsonl"), "its name still says what it is");
    assert_eq!(read_jsonl::<SftRecord>(file).unwrap().len(), 2);
    assert_eq!(place.visible().len(), 1, "nothing else is downloaded");
    assert_eq!(dataset(&place.offline(), "owner/data").unwrap(), fetched);
    fails(dataset(&place.offline(), "owner/data:test"), "test of dataset owner/data is not in the cache");
}

#[test]
fn another_part_is_named() {
    let place = place();
    for name in ["owner/data:test", "owner/data:data/test.jsonl", "owner/data@v1.0:test"] {
        let fetched = dataset(&place.hub(), name).unwrap();
        assert_eq!(fs::read(&fetched.files[0]).unwrap(), TEST, "{name}");
    }
    fails(
        dataset(&place.hub(), "owner/data:dev"),
        "there is no `dev`: name one as owner/data:NAME, of test, train",
    );
}

#[test]
fn shards_come_in_order_and_whole() {
    let place = Workplace::new();
    let shards: Vec<(String, Vec<u8>)> =
        (0..3u8).rev().map(|i| (format!("data/train-0000{i}-of-00003.parquet"), vec![i; 12_000])).collect();
    let files: Vec<(&str, &[u8])> = shards.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    place.server.add("datasets/owner/data", &files);
    let fetched = dataset(&place.hub(), "owner/data").unwrap();
    let firsts: Vec<u8> = fetched.files.iter().map(|file| fs::read(file).unwrap()[0]).collect();
    assert_eq!(firsts, [0, 1, 2]);
    fs::remove_file(&fetched.files[1]).unwrap();
    fails(
        dataset(&place.offline(), "owner/data"),
        "the file 00001-of-00003 of dataset owner/data is not in the cache",
    );
    dataset(&place.offline(), "owner/data:data/train-00002-of-00003.parquet").unwrap();
}
