//! The records of methods, as they are inspected.

use align_model::{
    chat::Message,
    inspect::{Inspected, Layout},
};

use crate::method::kto::JudgedRecord;

impl Inspected for JudgedRecord {
    fn layout(&self) -> Layout {
        match self {
            Self::Single(record) => record.layout(),
            Self::Pair(record) => record.layout(),
        }
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Single(record) => record.texts(),
            Self::Pair(record) => record.texts(),
        }
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        match self {
            Self::Single(record) => record.conversations(),
            Self::Pair(record) => record.conversations(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Single(record) => record.text(),
            Self::Pair(record) => record.text(),
        }
    }
}
