//! The merges of a byte-pair encoding: as a file lists them, or recovered from a `SentencePiece` vocabulary.

use std::collections::HashMap;

/// Longer tokens than any vocabulary has would make the search for their parts take forever.
const LONGEST_TOKEN: usize = 4096;

/// Splits the listed merges into their halves and checks that they and their union are tokens.
pub(super) fn parse(listed: &[&str], ids: &HashMap<&str, u32>) -> Result<Vec<(String, String)>, String> {
    let mut merges = Vec::with_capacity(listed.len());
    let mut union = String::new();
    for (index, merge) in listed.iter().enumerate() {
        let halves = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let Some((left, right)) = halves else {
            return Err(format!("merge {index}, `{merge}`, is not two tokens separated by a space"));
        };
        union.clear();
        union.push_str(left);
        union.push_str(right);
        if let Some(missing) = [left, right, &union].into_iter().find(|token| !ids.contains_key(token)) {
            return Err(format!(
                "merge {index}, `{merge}`, needs the token `{missing}`, which is not in the vocabulary"
            ));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

/// Every way to make a token out of two others, the tokens with the highest score first.
///
/// Among the ways with equal scores those with the longest halves come first, then those whose halves come first in the
/// vocabulary.
pub(super) fn from_scores(
    tokens: &[&str],
    scores: &[f64],
    ids: &HashMap<&str, u32>,
) -> Result<Vec<(String, String)>, String> {
    struct Merge<'a> {
        halves: (&'a str, &'a str),
        score: f64,
        lengths: (usize, usize),
    }
    let mut merges = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        if token.len() > LONGEST_TOKEN {
            return Err(format!("a token of {} bytes is longer than any that is used", token.len()));
        }
        let count = token.chars().count();
        let mut ways = Vec::new();
        for (position, (at, _)) in token.char_indices().enumerate().skip(1) {
            let halves = token.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(halves.0), ids.get(halves.1)) {
                ways.push(((left, right), Merge { halves, score, lengths: (position, count - position) }));
            }
        }
        ways.sort_by_key(|(ids, _)| *ids);
        merges.extend(ways.into_iter().map(|(_, merge)| merge));
    }
    merges.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.lengths.cmp(&a.lengths)));
    Ok(merges.into_iter().map(|merge| (merge.halves.0.to_owned(), merge.halves.1.to_owned())).collect())
}
