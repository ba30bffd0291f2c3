//! Preferences as tokens: pairs and single judged completions, as preference learning and reward models take them.
//!
//! A [`PreferenceTokenizer`] turns [`PreferenceRecord`](crate::data::PreferenceRecord)s and
//! [`TripleRecord`](crate::data::TripleRecord)s into [`PreferenceExample`]s, and
//! [`UnpairedRecord`](crate::data::UnpairedRecord)s into [`UnpairedExample`]s. What cannot teach anything (two equal
//! completions, an empty one, one of which nothing is left after the cut) is left out and counted.

mod example;
mod tokenize;

pub use example::{PreferenceExample, UnpairedExample};
pub use tokenize::{
    LeftOut, OnTooLong, PreferenceDataError, PreferenceOutcome, PreferenceSamples, PreferenceTokenizer,
};

#[cfg(test)]
mod tests;
