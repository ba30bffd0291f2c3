//! Several sources as one data set.

use std::collections::BTreeMap;

use align_model::{
    data::{Combine, DataError, DatasetConfig, Exhaustion, Located, SftRecord, SourceConfig, read, stream},
    number::Positive,
};
use proptest::prelude::*;

use crate::files::{Files, numbered, read_texts, text};

fn weighted(source: SourceConfig, weight: f64) -> SourceConfig {
    SourceConfig { weight: Some(Positive::new(weight)), ..source }
}

fn interleaved(sources: Vec<SourceConfig>, stop: Exhaustion, seed: u64) -> DatasetConfig {
    DatasetConfig { sources, combine: Combine::Interleave { stop, seed } }
}

fn read_all(config: &DatasetConfig) -> Vec<Located<SftRecord>> {
    read(config).unwrap().records
}

#[test]
fn sources_follow_one_another_unless_said_otherwise() {
    let files = Files::new();
    let sources = vec![files.texts("a.jsonl", numbered("a", 2)), files.write("b.csv", "text\nb0\n")];
    let config = DatasetConfig { sources, combine: Combine::default() };
    let sources: Vec<usize> = read_all(&config).iter().map(|located| located.source).collect();
    assert_eq!(sources, [0, 0, 1]);
    assert_eq!(read_texts(config), ["a0", "a1", "b0"]);
}

#[test]
fn sources_come_in_proportion_to_their_weights() {
    let files = Files::new();
    let sources = vec![
        weighted(files.texts("a.jsonl", numbered("a", 4000)), 3.0),
        files.texts("b.jsonl", numbered("b", 4000)),
        weighted(files.texts("c.jsonl", numbered("c", 4000)), 0.5),
    ];
    let records = read_all(&interleaved(sources, Exhaustion::FirstExhausted, 7));
    let mut counts = BTreeMap::new();
    for located in &records {
        *counts.entry(located.source).or_insert(0_usize) += 1;
    }
    assert_eq!(counts[&0], 4000, "the first source runs out first");
    // Four standard deviations of a draw with these shares.
    let total = records.len() as f64;
    for (source, share) in [(0, 3.0 / 4.5), (1, 1.0 / 4.5), (2, 0.5 / 4.5)] {
        let deviation = (total * share * (1.0_f64 - share)).sqrt();
        assert!((counts[&source] as f64 - total * share).abs() < 4.0 * deviation, "{counts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn mixtures_keep_the_order_of_each_source(
        lengths in prop::collection::vec((1_usize..20, 0.1_f64..5.0), 1..4), seed in 0_u64..1000, all in any::<bool>()
    ) {
        let files = Files::new();
        let sources: Vec<SourceConfig> = lengths
            .iter()
            .enumerate()
            .map(|(index, (length, weight))| {
                weighted(files.texts(&format!("{index}.jsonl"), numbered("", *length)), *weight)
            })
            .collect();
        let stop = if all { Exhaustion::AllExhausted } else { Exhaustion::FirstExhausted };
        let config = interleaved(sources, stop, seed);
        let records = read_all(&config);
        assert_eq!(records, read_all(&config), "the seed decides");

        let mut seen = vec![0_usize; lengths.len()];
        for located in records {
            let source = located.source;
            let over: Vec<bool> = seen.iter().zip(&lengths).map(|(seen, (length, _))| seen >= length).collect();
            assert!(if all { over.contains(&false) } else { !over.contains(&true) }, "it ends in time");
            assert_eq!(text(located), (seen[source] % lengths[source].0).to_string());
            seen[source] += 1;
        }
        let mut over = seen.iter().zip(&lengths).map(|(seen, (length, _))| seen >= length);
        assert!(if all { over.all(|over| over) } else { over.any(|over| over) }, "it does not end too early");
    }
}

#[test]
fn an_error_of_one_source_ends_a_mixture() {
    let files = Files::new();
    for combine in [Combine::default(), Combine::Interleave { stop: Exhaustion::AllExhausted, seed: 1 }] {
        let sources = vec![files.texts("a.jsonl", numbered("a", 3)), files.write("b.jsonl", "\n")];
        let error = read::<SftRecord>(&DatasetConfig { sources, combine }).unwrap_err();
        assert!(matches!(&error, DataError::Empty { path } if path.ends_with("b.jsonl")), "{error}");
    }
}

#[test]
fn an_error_comes_behind_the_records_before_it() {
    let files = Files::new();
    let sources = vec![files.write("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{}\n")];
    let config = interleaved(sources, Exhaustion::FirstExhausted, 1);
    let items: Vec<_> = stream::<SftRecord>(&config).unwrap().collect();
    assert!(matches!(&items[..], [Ok(_), Ok(_), Err(DataError::Record { line: 3, .. })]), "{items:?}");
}
