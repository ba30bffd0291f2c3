//! Where the blocks lie in which a template says that the assistant wrote them.
//!
//! The source's generation tags have been rewritten so that a function is called at each end of a block. The text goes
//! through a writer that counts, so those functions know where they are.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minijinja::value::Value;

/// Notes where the generation blocks of one rendering lie.
#[derive(Debug, Default)]
pub(super) struct GenerationTracker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Characters written so far.
    written: usize,
    /// Where the blocks begin that have not ended.
    open: Vec<usize>,
    spans: Vec<Range<usize>>,
}

impl GenerationTracker {
    /// The function that is called where a block begins.
    pub(super) fn start_function(self: &Arc<Self>) -> Value {
        let tracker = Arc::clone(self);
        Value::from_function(move || {
            let mut state = tracker.state();
            let start = state.written;
            state.open.push(start);
        })
    }

    /// The function that is called where a block ends.
    pub(super) fn end_function(self: &Arc<Self>) -> Value {
        let tracker = Arc::clone(self);
        Value::from_function(move || {
            let mut state = tracker.state();
            let end = state.written;
            let start = state.open.pop().unwrap_or(end);
            state.spans.push(start..end);
        })
    }

    /// A writer that collects the text and counts its characters.
    pub(super) fn writer<'a>(&'a self, text: &'a mut Vec<u8>) -> CountingWriter<'a> {
        CountingWriter { tracker: self, text }
    }

    /// The character ranges of the blocks, in the order in which they ended.
    pub(super) fn spans(&self) -> Vec<Range<usize>> {
        std::mem::take(&mut self.state().spans)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects what a template writes.
#[derive(Debug)]
pub(super) struct CountingWriter<'a> {
    tracker: &'a GenerationTracker,
    text: &'a mut Vec<u8>,
}

impl io::Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Every character has exactly one byte that is not a continuation byte.
        self.tracker.state().written += bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
