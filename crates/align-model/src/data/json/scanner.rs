//! Cuts a JSON file into values without reading it as a whole.

use std::io::BufRead;

use serde::de::{DeserializeOwned, Error as _};

use super::super::{DataError, file::DataFile, jsonl::BYTE_ORDER_MARK};

/// Reads a JSON file byte by byte and knows where it is.
pub(super) struct Scanner<B> {
    file: DataFile,
    content: B,
    line: usize,
    column: usize,
    is_begun: bool,
}

/// The text of one value.
pub(super) struct Text {
    bytes: Vec<u8>,
    /// The line where it begins, from 1.
    pub(super) line: usize,
    column: usize,
}

impl<B: BufRead> Scanner<B> {
    pub(super) fn new(file: DataFile, content: B) -> Self {
        Self { file, content, line: 1, column: 1, is_begun: false }
    }

    /// The next byte that is not white space, which is not taken.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, DataError> {
        if !self.is_begun {
            self.is_begun = true;
            self.skip_byte_order_mark()?;
        }
        while let Some(byte) = self.byte()? {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(Some(byte));
            }
            self.take(byte);
        }
        Ok(None)
    }

    /// Takes the byte that was peeked at.
    pub(super) fn bump(&mut self) -> Result<(), DataError> {
        if let Some(byte) = self.byte()? {
            self.take(byte);
        }
        Ok(())
    }

    /// Takes one value: brackets and quotes up to where they close, anything else up to the next mark.
    pub(super) fn value(&mut self) -> Result<Text, DataError> {
        let mut text = Text { bytes: Vec::new(), line: self.line, column: self.column };
        let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
        while let Some(byte) = self.byte()? {
            if in_string {
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' => is_escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' | b',' | b':' if depth == 0 => break,
                    b'}' | b']' => depth -= 1,
                    _ if depth == 0 && byte.is_ascii_whitespace() => break,
                    _ => {}
                }
            }
            self.take(byte);
            text.bytes.push(byte);
            if depth == 0 && !in_string && matches!(byte, b'}' | b']' | b'"') {
                break;
            }
        }
        if text.bytes.is_empty() {
            return Err(self.expected("a value")?);
        }
        Ok(text)
    }

    /// The error that something else was expected here.
    pub(super) fn expected(&mut self, what: &str) -> Result<DataError, DataError> {
        let found = match self.byte()? {
            None => "the file ends".to_owned(),
            Some(byte) => format!("found `{}`", char::from(byte).escape_default()),
        };
        Ok(DataError::Malformed {
            path: self.file.path.to_path_buf(),
            line: self.line,
            column: self.column,
            error: serde_json::Error::custom(format!("{found}, expected {what}")),
        })
    }

    fn byte(&mut self) -> Result<Option<u8>, DataError> {
        loop {
            match self.content.fill_buf() {
                Ok(buffer) => return Ok(buffer.first().copied()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.file.unreadable(error)),
            }
        }
    }

    fn take(&mut self, byte: u8) {
        self.content.consume(1);
        if byte == b'\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result<(), DataError> {
        for mark in BYTE_ORDER_MARK {
            if self.byte()? != Some(*mark) {
                break;
            }
            self.content.consume(1);
        }
        Ok(())
    }
}

impl Text {
    /// The value, or where in the file it is not JSON.
    pub(super) fn parse<T: DeserializeOwned>(&self, file: &DataFile) -> Result<T, DataError> {
        let path = || file.path.to_path_buf();
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let before = &self.bytes[..error.valid_up_to()];
            let lines: Vec<&[u8]> = before.split(|byte| *byte == b'\n').collect();
            let column = lines.last().map_or(0, |line| line.len()) + 1;
            let (line, column) = self.place(lines.len(), column);
            DataError::NotUtf8 { path: path(), line, column }
        })?;
        serde_json::from_str(text).map_err(|error| {
            let (line, column) = self.place(error.line(), error.column());
            DataError::Malformed { path: path(), line, column, error }
        })
    }

    /// Line and column of the file of those of this text.
    fn place(&self, line: usize, column: usize) -> (usize, usize) {
        match line {
            0 | 1 => (self.line, self.column + column.max(1) - 1),
            _ => (self.line + line - 1, column.max(1)),
        }
    }
}
