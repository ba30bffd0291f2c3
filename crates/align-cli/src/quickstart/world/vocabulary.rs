//! Every word of the world.

/// Tokens that are not words, in the order of their ids: padding, start, end, unknown word, and the two speakers.
pub(super) const SPECIAL_TOKENS: [&str; 6] = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>"];

/// People.
pub(super) const NAMES: [&str; 14] =
    ["tom", "mia", "ben", "eva", "sam", "lea", "max", "ida", "leo", "ana", "jon", "amy", "kim", "lou"];

/// What each of them does, in the order of [`NAMES`].
pub(super) const ACTIONS: [&str; 14] = [
    "sings", "dances", "sleeps", "reads", "cooks", "swims", "runs", "waits", "paints", "laughs", "climbs",
    "writes", "sews", "rides",
];

/// Animals, from the smallest to the biggest.
pub(super) const ANIMALS: [&str; 12] =
    ["ant", "bee", "snail", "mouse", "duck", "cat", "dog", "goat", "bear", "cow", "elephant", "whale"];

/// Numbers from one on.
pub(super) const NUMBERS: [&str; 20] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Adjectives: two and two are opposites.
pub(super) const ADJECTIVES: [&str; 20] = [
    "hot", "cold", "big", "small", "old", "new", "fast", "slow", "wet", "dry", "hard", "soft", "light",
    "dark", "full", "empty", "clean", "dirty", "loud", "quiet",
];

/// Words that hold sentences together.
const GRAMMAR: [&str; 23] = [
    ".",
    ",",
    "?",
    "!",
    "the",
    "is",
    "of",
    "who",
    "what",
    "which",
    "does",
    "do",
    "than",
    "or",
    "and",
    "bigger",
    "smaller",
    "opposite",
    "after",
    "come",
    "comes",
    "say",
    "backwards",
];

/// Words of manners, wishes and refusals: the requests of the first stages never use them, but a model whose
/// vocabulary has no word for `sorry` could never learn to say it.
const MANNERS: [&str; 56] = [
    "i", "a", "you", "it", "we", "me", "my", "your", "am", "are", "can", "cannot", "will", "would", "should",
    "not", "no", "yes", "this", "that", "here", "please", "thanks", "welcome", "sure", "sorry", "happy",
    "glad", "help", "kind", "nice", "good", "bad", "safe", "rude", "silly", "stupid", "lazy", "boring", "go",
    "away", "how", "why", "because", "tell", "ask", "steal", "break", "burn", "hurt", "hit", "trick",
    "someone", "people", "friend", "with",
];

/// All tokens, in the order of their ids.
pub(super) fn tokens() -> impl Iterator<Item = &'static str> {
    SPECIAL_TOKENS
        .into_iter()
        .chain(GRAMMAR)
        .chain(NAMES)
        .chain(ACTIONS)
        .chain(ANIMALS)
        .chain(NUMBERS)
        .chain(ADJECTIVES)
        .chain(MANNERS)
}

/// What a person of the world does.
///
/// # Panics
/// If `name` is not one of [`NAMES`].
pub(super) fn action(name: &str) -> &'static str {
    ACTIONS[rank(&NAMES, name)]
}

/// The opposite of an adjective of the world.
///
/// # Panics
/// If `word` is not one of [`ADJECTIVES`].
pub(super) fn opposite(word: &str) -> &'static str {
    ADJECTIVES[rank(&ADJECTIVES, word) ^ 1]
}

/// The number after a number of the world.
///
/// # Panics
/// If `word` is not one of [`NUMBERS`], or the last one.
pub(super) fn successor(word: &str) -> &'static str {
    NUMBERS[rank(&NUMBERS, word) + 1]
}

/// The size of an animal of the world: 0 for the smallest.
///
/// # Panics
/// If `word` is not one of [`ANIMALS`].
pub(super) fn size(word: &str) -> usize {
    rank(&ANIMALS, word)
}

fn rank(words: &[&str], word: &str) -> usize {
    let rank = words.iter().position(|known| *known == word);
    assert!(rank.is_some(), "`{word}` is not one of {}", words.join(", "));
    rank.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_is_there_once_and_there_are_at_most_200() {
        let all: Vec<_> = tokens().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.len() <= 200, "{}", all.len());
    }

    #[test]
    fn opposites_are_mutual() {
        assert_eq!(opposite("hot"), "cold");
        assert!(ADJECTIVES.iter().all(|word| opposite(opposite(word)) == *word));
    }
}
