//! JSON files whose rows are the elements of an array, or objects one after another.

mod scanner;

use std::io::BufRead;

use serde_json::{Map, Value};

use super::{
    DataError,
    file::DataFile,
    rows::{Fault, RawRow},
};
use scanner::{Scanner, Text};

/// The rows of a JSON file, held in memory one at a time.
///
/// The file is an array of objects, or an object with a field that is such an array; or objects that follow each other,
/// because files of JSON lines are often called `.json`.
pub(super) struct JsonRows<B> {
    file: DataFile,
    scanner: Scanner<B>,
    field: Option<String>,
    state: State,
}

/// Where reading stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Before the first byte.
    Start,
    /// Behind the bracket of the array.
    FirstElement,
    /// Behind an element of the array.
    Element,
    /// Between objects that follow each other.
    Objects,
    /// At the end, or where reading failed.
    Over,
}

impl<B: BufRead> JsonRows<B> {
    pub(super) fn new(file: DataFile, content: B, field: Option<&str>) -> Self {
        Self {
            scanner: Scanner::new(file.clone(), content),
            file,
            field: field.map(str::to_owned),
            state: State::Start,
        }
    }

    /// The bytes of the next row; `None` at the end.
    fn advance(&mut self) -> Result<Option<Text>, DataError> {
        if self.state == State::Start {
            self.state = self.begin()?;
        }
        match self.state {
            State::Start | State::Over => return Ok(None),
            State::Objects => {
                return if self.scanner.peek()?.is_some() {
                    self.scanner.value().map(Some)
                } else {
                    Ok(None)
                };
            }
            State::FirstElement | State::Element => {}
        }
        match self.scanner.peek()? {
            Some(b']') => {
                self.scanner.bump()?;
                self.end()?;
                return Ok(None);
            }
            Some(b',') if self.state == State::Element => self.scanner.bump()?,
            _ if self.state == State::Element => return Err(self.scanner.expected("`,` or `]`")?),
            _ => {}
        }
        self.scanner.peek()?;
        self.state = State::Element;
        self.scanner.value().map(Some)
    }

    fn begin(&mut self) -> Result<State, DataError> {
        let Some(field) = self.field.clone() else {
            return match self.scanner.peek()? {
                None => Ok(State::Over),
                Some(b'[') => {
                    self.scanner.bump()?;
                    Ok(State::FirstElement)
                }
                Some(b'{') => Ok(State::Objects),
                Some(_) => Err(self.scanner.expected("an array of objects, or objects one after another")?),
            };
        };
        self.enter(field)
    }

    /// Goes to the first element of a field's array.
    fn enter(&mut self, field: String) -> Result<State, DataError> {
        let mut found = Vec::new();
        if self.scanner.peek()? != Some(b'{') {
            return Err(self.scanner.expected("an object, because `field` names one of its fields")?);
        }
        self.scanner.bump()?;
        loop {
            match self.scanner.peek()? {
                Some(b'}') => {
                    let path = self.file.path.to_path_buf();
                    return Err(DataError::JsonField { path, field, found });
                }
                Some(b',') if !found.is_empty() => self.scanner.bump()?,
                _ if found.is_empty() => {}
                _ => return Err(self.scanner.expected("`,` or `}`")?),
            }
            self.scanner.peek()?;
            let key = self.scanner.value()?;
            let key: String = key.parse(&self.file)?;
            if self.scanner.peek()? != Some(b':') {
                return Err(self.scanner.expected("`:`")?);
            }
            self.scanner.bump()?;
            let value = self.scanner.peek()?;
            if key == field && value == Some(b'[') {
                self.scanner.bump()?;
                return Ok(State::FirstElement);
            }
            self.scanner.value()?;
            found.push(key);
        }
    }

    /// Checks what comes behind the array: nothing, or the rest of the object that it is a field of.
    fn end(&mut self) -> Result<(), DataError> {
        self.state = State::Over;
        if self.field.is_some() {
            while self.scanner.peek()? == Some(b',') {
                self.scanner.bump()?;
                self.scanner.peek()?;
                self.scanner.value()?;
                if self.scanner.peek()? != Some(b':') {
                    return Err(self.scanner.expected("`:`")?);
                }
                self.scanner.bump()?;
                self.scanner.peek()?;
                self.scanner.value()?;
            }
            if self.scanner.peek()? != Some(b'}') {
                return Err(self.scanner.expected("`,` or `}`")?);
            }
            self.scanner.bump()?;
        }
        match self.scanner.peek()? {
            None => Ok(()),
            Some(_) => Err(self.scanner.expected("the end of the file")?),
        }
    }
}

impl<B: BufRead> Iterator for JsonRows<B> {
    type Item = Result<RawRow, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Over {
            return None;
        }
        let text = match self.advance() {
            Ok(Some(text)) => text,
            Ok(None) => {
                self.state = State::Over;
                return None;
            }
            Err(error) => {
                self.state = State::Over;
                return Some(Err(Fault::File(error)));
            }
        };
        let row = text.parse::<Map<String, Value>>(&self.file);
        Some(row.map(|columns| (text.line, columns)).map_err(Fault::Row))
    }
}

#[cfg(test)]
mod tests;
