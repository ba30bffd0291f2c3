//! Records that say the same, or nearly.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::{
    minhash::{MinHash, buckets},
    row::{Inspected, InspectedRow, Place},
    words::hash,
};
use crate::data::Located;

/// Records that are alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DuplicateGroup {
    /// Where they stand, in the order in which they were read.
    pub places: Vec<Place>,
    /// The lowest Jaccard similarity by which one of them was counted in; 1 for records that are equal.
    pub similarity: f64,
}

/// Groups of records that are equal: the same texts by the same roles.
pub(super) fn exact_duplicates<R: Inspected>(rows: &[&Located<InspectedRow<R>>]) -> Vec<DuplicateGroup> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let alike = by_hash.entry(hash(row.record.text.as_bytes())).or_default();
        let equal = |group: usize| rows[groups[group][0]].record.record == row.record.record;
        if let Some(known) = alike.iter().copied().find(|&group| equal(group)) {
            groups[known].push(index);
        } else {
            alike.push(groups.len());
            groups.push(vec![index]);
        }
    }
    groups.into_iter().filter(|group| group.len() > 1).map(|group| described(rows, &group, 1.0)).collect()
}

/// Groups of records whose texts are nearly alike; of records that are equal only the first is looked at.
pub(super) fn near_duplicates<R: Inspected>(
    rows: &[&Located<InspectedRow<R>>],
    exact: &[DuplicateGroup],
    hashes: &MinHash,
) -> Vec<DuplicateGroup> {
    let repeated: BTreeSet<&Place> = exact.iter().flat_map(|group| group.places.iter().skip(1)).collect();
    let rows: Vec<_> = rows.iter().copied().filter(|row| !repeated.contains(&Place::of(row))).collect();
    let texts: Vec<&str> = rows.iter().map(|row| row.record.text.as_str()).collect();
    let mut buckets: Vec<Vec<usize>> =
        buckets(&hashes.bands(&texts)).into_values().filter(|bucket| bucket.len() > 1).collect();
    // A hash map's order is another one in every run.
    buckets.sort_unstable();
    buckets.dedup();
    let mut groups = Groups::new(texts.len());
    for bucket in buckets {
        join_alike(&bucket, &texts, hashes, &mut groups);
    }
    groups.collect().into_iter().map(|(members, similarity)| described(&rows, &members, similarity)).collect()
}

/// Joins the texts of a bucket that are alike. Each is compared with one of every group, not with every other: a bucket
/// of a thousand copies costs a thousand comparisons.
fn join_alike(bucket: &[usize], texts: &[&str], hashes: &MinHash, groups: &mut Groups) {
    let mut representatives: Vec<usize> = Vec::new();
    for &text in bucket {
        if representatives.iter().any(|&other| groups.joined(text, other)) {
            continue;
        }
        let alike = representatives
            .iter()
            .find_map(|&other| hashes.alike(texts[text], texts[other]).map(|similarity| (other, similarity)));
        match alike {
            Some((other, similarity)) => groups.join(text, other, similarity),
            None => representatives.push(text),
        }
    }
}

fn described<R: Inspected>(
    rows: &[&Located<InspectedRow<R>>],
    members: &[usize],
    similarity: f64,
) -> DuplicateGroup {
    DuplicateGroup { places: members.iter().map(|&index| Place::of(rows[index])).collect(), similarity }
}

/// Disjoint sets of indices that grow together.
struct Groups {
    parents: Vec<usize>,
    /// The lowest similarity inside the group, at its root.
    similarities: Vec<f64>,
}

impl Groups {
    fn new(count: usize) -> Self {
        Self { parents: (0..count).collect(), similarities: vec![1.0; count] }
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    fn joined(&mut self, a: usize, b: usize) -> bool {
        self.root(a) == self.root(b)
    }

    fn join(&mut self, a: usize, b: usize, similarity: f64) {
        let (a, b) = (self.root(a), self.root(b));
        let (first, second) = (a.min(b), a.max(b));
        self.parents[second] = first;
        let lowest = self.similarities[first].min(self.similarities[second]).min(similarity);
        self.similarities[first] = lowest;
    }

    /// The groups of more than one, in the order of their first members, with their similarity.
    fn collect(mut self) -> Vec<(Vec<usize>, f64)> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in 0..self.parents.len() {
            members.entry(self.root(index)).or_default().push(index);
        }
        let groups = members.into_iter().filter(|(_, members)| members.len() > 1);
        groups.map(|(root, members)| (members, self.similarities[root])).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::SftRecord;

    fn rows(texts: &[String]) -> Vec<Located<InspectedRow>> {
        let row = |(index, text): (usize, &String)| Located {
            path: Arc::from(std::path::Path::new("d")),
            line: index + 1,
            record: InspectedRow { record: Ok(SftRecord::Text { text: text.clone() }), text: text.clone() },
            extra: serde_json::Map::new(),
            source: 0,
        };
        texts.iter().enumerate().map(row).collect()
    }

    fn text(from: usize, to: usize) -> String {
        (from..to).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
    }

    fn lines(groups: &[DuplicateGroup]) -> Vec<Vec<usize>> {
        groups.iter().map(|group| group.places.iter().map(|place| place.line).collect()).collect()
    }

    #[test]
    fn planted_duplicates_are_found() {
        let mut texts: Vec<String> = (0..50).map(|i| text(i * 1000, i * 1000 + 100)).collect();
        texts.push(texts[3].clone());
        texts.push(format!("{} and one word more", texts[7]));
        texts.push(texts[9].to_uppercase());
        texts.push(texts[3].clone());
        let rows = rows(&texts);
        let rows: Vec<_> = rows.iter().collect();
        let exact = exact_duplicates(&rows);
        assert_eq!(lines(&exact), [[4, 51, 54]]);
        let near = near_duplicates(&rows, &exact, &MinHash::new(0.8, 5, 0));
        assert_eq!(lines(&near), [[8, 52], [10, 53]]);
        assert!((near[0].similarity - 96.0 / 100.0).abs() < 1e-9, "{}", near[0].similarity);
        assert!((near[1].similarity - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_chain_of_alike_texts_is_one_group() {
        let texts: Vec<String> = (0..4).map(|i| text(i * 5, i * 5 + 104)).collect();
        let rows = rows(&texts);
        let near = near_duplicates(&rows.iter().collect::<Vec<_>>(), &[], &MinHash::new(0.8, 5, 0));
        assert_eq!(lines(&near), [[1, 2, 3, 4]]);
        assert!(near[0].similarity >= 0.8);
    }
}
