//! Endless, shuffled, resumable streams.

use std::num::NonZeroUsize;

use align_model::data::{
    Batched, Combine, DatasetConfig, Exhaustion, OnBadRow, Passes, SftRecord, SourceConfig,
};
use proptest::prelude::*;

use crate::files::{Files, numbered, text};

fn passes(config: impl Into<DatasetConfig>, window: usize, seed: u64) -> Passes<SftRecord> {
    Passes::new(config.into(), NonZeroUsize::new(window).unwrap(), seed).unwrap()
}

fn texts(passes: Passes<SftRecord>, count: usize) -> Vec<String> {
    passes.take(count).map(|record| text(record.unwrap())).collect()
}

#[test]
fn a_window_of_one_repeats_the_files() {
    let files = Files::new();
    let source = files.texts("a.jsonl.gz", numbered("a", 3));
    assert_eq!(texts(passes(source, 1, 5), 7), ["a0", "a1", "a2", "a0", "a1", "a2", "a0"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_pass_has_every_record_and_skipping_is_taking(
        count in 1_usize..30, window in 1_usize..40, seed in 0_u64..100, skip in 0_usize..60
    ) {
        let files = Files::new();
        let source = files.texts("a.jsonl", numbered("", count));
        let all = texts(passes(source.clone(), window, seed), 3 * count + 60);
        for pass in all.chunks_exact(count) {
            let mut pass: Vec<usize> = pass.iter().map(|text| text.parse().unwrap()).collect();
            pass.sort_unstable();
            assert_eq!(pass, (0..count).collect::<Vec<_>>());
        }
        let mut resumed = passes(source, window, seed);
        resumed.skip_records(skip as u64).unwrap();
        assert_eq!(resumed.records_taken(), skip as u64);
        assert_eq!(texts(resumed, 3 * count), all[skip..skip + 3 * count]);
    }
}

#[test]
fn passes_and_seeds_differ() {
    let files = Files::new();
    let source = files.texts("a.jsonl", numbered("", 40));
    let one = texts(passes(source.clone(), 100, 1), 80);
    assert_ne!(one[..40], one[40..]);
    assert_ne!(one, texts(passes(source.clone(), 100, 2), 80));

    let sources = vec![source, files.texts("b.jsonl", numbered("b", 40))];
    let combine = Combine::Interleave { stop: Exhaustion::AllExhausted, seed: 3 };
    let mixed = texts(passes(DatasetConfig { sources, combine }, 1, 1), 40);
    assert!(
        mixed.iter().any(|text| text.starts_with('b')) && !mixed.iter().all(|text| text.starts_with('b'))
    );
}

#[test]
fn bad_rows_are_counted_once() {
    let files = Files::new();
    let source = files.write("a.jsonl", "{\"text\": \"a\"}\n{}\n{\"text\": \"b\"}\n");
    let source = SourceConfig { on_bad_row: OnBadRow::Skip, ..source };
    let mut passes = passes(source, 2, 1);
    assert!(passes.skipped_rows().is_none());
    passes.skip_records(9).unwrap();
    assert_eq!(passes.pass(), 4);
    assert_eq!(passes.skipped_rows().unwrap().count, 1);
}

#[test]
fn nothing_comes_after_an_error() {
    let files = Files::new();
    let source = files.write("a.jsonl", "{\"text\": \"a\"}\n{}\n");
    let items: Vec<_> = passes(source, 1, 1).collect();
    assert!(matches!(&items[..], [Ok(_), Err(_)]), "{items:?}");
    let empty = files.write("b.jsonl", "");
    assert!(matches!(&passes(empty, 1, 1).collect::<Vec<_>>()[..], [Err(_)]), "no endless loop over nothing");
}

#[test]
fn batches_go_over_the_end_of_a_pass() {
    let files = Files::new();
    let source = files.texts("a.jsonl", numbered("a", 3));
    let batches = Batched::new(passes(source, 1, 1), NonZeroUsize::new(2).unwrap());
    let batches: Vec<Vec<String>> =
        batches.take(3).map(|batch| batch.unwrap().into_iter().map(text).collect()).collect();
    assert_eq!(batches, [["a0", "a1"], ["a2", "a0"], ["a1", "a2"]]);
}
