//! `{% generation %}`: the block by which a template marks what the assistant wrote.
//!
//! The source's generation tags have been rewritten into call blocks; the function that they call notes where its text
//! begins and how long it is.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use minijinja::{
    Error, State,
    value::{Kwargs, Value},
};

/// Notes where the generation blocks of one rendering lie.
#[derive(Debug, Default)]
pub(super) struct GenerationTracker {
    /// Characters written so far at the top level.
    written: AtomicUsize,
    blocks: Mutex<Vec<(usize, String)>>,
}

impl GenerationTracker {
    /// The function that rewritten blocks call.
    pub(super) fn function(self: &Arc<Self>) -> Value {
        let tracker = Arc::clone(self);
        Value::from_function(move |state: &mut State<'_, '_>, named: Kwargs| -> Result<Value, Error> {
            let caller: Value = named.get("caller")?;
            let value = caller.call(state, &[])?;
            let start = tracker.written.load(Ordering::Relaxed);
            tracker.blocks.lock().unwrap_or_else(PoisonError::into_inner).push((start, value.to_string()));
            Ok(value)
        })
    }

    /// A writer that collects the text and counts its characters.
    pub(super) fn writer<'a>(&'a self, text: &'a mut Vec<u8>) -> CountingWriter<'a> {
        CountingWriter { tracker: self, text }
    }

    /// The character ranges of the blocks in the finished text, and whether every one of them lies where it was noted.
    pub(super) fn spans(&self, text: &str) -> (Vec<Range<usize>>, bool) {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let starts: Vec<usize> = text.char_indices().map(|(index, _)| index).chain([text.len()]).collect();
        let in_place = |(start, block): &(usize, String)| {
            starts.get(*start).is_some_and(|&byte| text[byte..].starts_with(block.as_str()))
        };
        let all_in_place = blocks.iter().all(in_place);
        (blocks.iter().map(|(start, block)| *start..*start + block.chars().count()).collect(), all_in_place)
    }
}

/// Collects what a template writes at its top level.
#[derive(Debug)]
pub(super) struct CountingWriter<'a> {
    tracker: &'a GenerationTracker,
    text: &'a mut Vec<u8>,
}

impl io::Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Every character has exactly one byte that is not a continuation byte.
        let characters = bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        self.tracker.written.fetch_add(characters, Ordering::Relaxed);
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
