//! What a sequence says, whole and while it grows.

use super::{Finish, Generation, Sampled, StopAt};
use crate::tokenizer::{DecodeStream, SpecialTokenText, Tokenizer, TokenizerError};

impl Generation {
    /// What was said, without special tokens and without the token or the string that ended it.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn text(&self, tokenizer: &Tokenizer, stop: &StopAt) -> Result<String, TokenizerError> {
        let said = match (self.finish, self.tokens.split_last()) {
            (Finish::StopToken(_), Some((_, said))) => said,
            _ => &self.tokens,
        };
        let mut text = tokenizer.decode(said, SpecialTokenText::Skip)?;
        if matches!(self.finish, Finish::StopString(_)) {
            cut_at_stop(&mut text, &stop.strings);
        }
        Ok(text)
    }
}

/// The text of one sequence while it grows: the pieces one after another are [`Generation::text`].
///
/// What may turn out to be the beginning of a stop string is held back until that is settled.
#[derive(Debug)]
pub struct TextStream {
    stream: DecodeStream,
    stop_strings: Vec<String>,
    held: String,
    finish: Option<Finish>,
}

impl TextStream {
    /// The beginning of a sequence.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, stop: &StopAt) -> Self {
        Self {
            stream: tokenizer.decode_stream(SpecialTokenText::Skip),
            stop_strings: stop.strings.clone(),
            held: String::new(),
            finish: None,
        }
    }

    /// Takes the sequence's next token and returns the text that is certain now; empty where nothing is.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn push(&mut self, sampled: &Sampled) -> Result<String, TokenizerError> {
        self.finish = sampled.finish;
        if !matches!(self.finish, Some(Finish::StopToken(_))) {
            self.held.push_str(&self.stream.push(sampled.token)?);
        }
        if self.finish.is_some() {
            return Ok(String::new());
        }
        let certain = self.held.len() - length_of_begun_stop(&self.held, &self.stop_strings);
        let rest = self.held.split_off(certain);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    /// The text that was still held back, now that no further token comes.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        self.held.push_str(&self.stream.finish()?);
        if matches!(self.finish, Some(Finish::StopString(_))) {
            cut_at_stop(&mut self.held, &self.stop_strings);
        }
        Ok(self.held)
    }
}

fn cut_at_stop(text: &mut String, stop_strings: &[String]) {
    if let Some(at) = stop_strings.iter().filter_map(|stop| text.find(stop.as_str())).min() {
        text.truncate(at);
    }
}

/// The length of the longest end of a text with which a stop string begins.
fn length_of_begun_stop(text: &str, stop_strings: &[String]) -> usize {
    let begins = |end: &str| stop_strings.iter().any(|stop| stop.starts_with(end));
    text.char_indices().map(|(at, _)| &text[at..]).find(|end| begins(end)).map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{SpecialTokens, test_tokenizers::byte_level};

    /// The pieces of a text's tokens, the last of which ends the sequence, and the text of the whole.
    fn pieces(text: &str, last: &[u32], finish: Finish, stop: &[&str]) -> (Vec<String>, String) {
        let tokenizer = byte_level();
        let stop = StopAt { tokens: vec![2], strings: stop.iter().map(ToString::to_string).collect() };
        let mut tokens = tokenizer.encode(text, SpecialTokens::Omit).unwrap();
        tokens.extend(last);
        let mut stream = TextStream::new(&tokenizer, &stop);
        let mut pieces: Vec<String> = Vec::new();
        for (index, &token) in tokens.iter().enumerate() {
            let finish = (index + 1 == tokens.len()).then_some(finish);
            let sampled = Sampled { prompt: 0, sample: 0, token, log_prob: 0.0, finish };
            pieces.push(stream.push(&sampled).unwrap());
        }
        pieces.push(stream.finish().unwrap());
        pieces.retain(|piece| !piece.is_empty());
        let generation = Generation { log_probs: vec![0.0; tokens.len()], tokens, supports: None, finish };
        (pieces, generation.text(&tokenizer, &stop).unwrap())
    }

    #[test]
    fn pieces_make_the_whole() {
        let (streamed, whole) = pieces("the cät", &[], Finish::Length, &[]);
        assert_eq!(streamed.concat(), "the cät");
        assert_eq!(whole, "the cät");
        assert!(streamed.len() > 3, "{streamed:?}");
    }

    #[test]
    fn a_stop_token_is_not_said() {
        for token in [2, 70] {
            let (streamed, whole) = pieces("ab", &[token], Finish::StopToken(token), &[]);
            assert_eq!((streamed.concat().as_str(), whole.as_str()), ("ab", "ab"));
        }
    }

    #[test]
    fn a_stop_string_is_never_shown_and_its_false_beginnings_are() {
        let (streamed, whole) = pieces("x enx end", &[], Finish::StopString(0), &["end"]);
        assert_eq!((streamed.concat().as_str(), whole.as_str()), ("x enx ", "x enx "));
        assert!(streamed.iter().any(|piece| piece == "enx"), "{streamed:?}");
        let (streamed, whole) = pieces("an en", &[], Finish::Length, &["end"]);
        assert_eq!((streamed.concat().as_str(), whole.as_str()), ("an en", "an en"));
    }
}
