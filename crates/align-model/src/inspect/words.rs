//! Texts as sequences of words, for comparing what they say and not how it is set.

/// The words of a text: lower case, parted at everything that is neither letter nor digit. A character of a script that
/// puts no spaces between words is a word.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for character in text.chars() {
        if !character.is_alphanumeric() {
            open = false;
        } else if stands_alone(character) {
            words.push(character.to_string());
            open = false;
        } else {
            if !open {
                words.push(String::new());
                open = true;
            }
            if let Some(word) = words.last_mut() {
                word.extend(character.to_lowercase());
            }
        }
    }
    words
}

/// Hashes of a text's [`words`].
pub(super) fn word_hashes(text: &str) -> Vec<u64> {
    words(text).iter().map(|word| hash(word.as_bytes())).collect()
}

/// Hashes of all runs of `length` words, in order; of a shorter text, one hash of all its words.
pub(super) fn grams(words: &[u64], length: usize) -> Vec<u64> {
    if words.is_empty() {
        return Vec::new();
    }
    words.windows(length.min(words.len())).map(gram).collect()
}

/// The words of several texts taken together.
fn gram(words: &[u64]) -> u64 {
    words.iter().fold(words.len() as u64, |state, &word| mix(state.wrapping_mul(PRIME) ^ word))
}

/// FNV-1a, mixed: the same on every machine and in every version, as a seeded comparison has to be.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fold = |state: u64, &byte: &u8| (state ^ u64::from(byte)).wrapping_mul(PRIME);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finaliser of `SplitMix64`: every bit of the result depends on every bit of the argument.
pub(super) fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Chinese characters, Japanese kana, Thai, Lao, Burmese and Khmer letters.
fn stands_alone(character: char) -> bool {
    matches!(
        u32::from(character),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF
            | 0xF900..=0xFAFF | 0x20000..=0x3FFFF
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_does_not_matter() {
        assert_eq!(words("The cat's  HAT,\n(2nd)!"), ["the", "cat", "s", "hat", "2nd"]);
        assert_eq!(words("我有3只猫 ok"), ["我", "有", "3", "只", "猫", "ok"]);
        assert!(words(" ,; ").is_empty());
        assert_eq!(word_hashes("A b"), word_hashes("a, B"));
    }

    #[test]
    fn grams_overlap_and_depend_on_order() {
        let of = |text| grams(&word_hashes(text), 3);
        assert_eq!(of("a b c d").len(), 2);
        assert_eq!(of("a b c d")[1], of("b c d")[0]);
        assert_ne!(of("a b c"), of("c b a"));
        assert_eq!(of("a b").len(), 1);
        assert!(of("").is_empty());
    }
}
