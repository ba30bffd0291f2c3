//! The head of a GGUF file, checked field by field before anything is allocated from what it declares.
//!
//! A file can declare any count, length, dimension or offset. Everything is compared with the file's size here, so that
//! the reader that builds the metadata afterwards only ever sees a head that is consistent.

use std::collections::HashSet;
use std::io::Read;

use super::tensor_type::TensorType;

const MAGIC: [u8; 4] = *b"GGUF";
const SUPPORTED_VERSIONS: [u32; 2] = [2, 3];
const DEFAULT_ALIGNMENT: u64 = 32;
/// No vocabulary comes near; without a limit a file of bytes would become a list of values many times its size.
const MAX_ARRAY_ELEMENTS: u64 = 1 << 24;
const MAX_STRING_BYTES: u64 = 1 << 26;
const MAX_HEADER_BYTES: u64 = 1 << 29;
const MAX_DIMENSIONS: u32 = 4;
const MAX_ARRAY_DEPTH: u32 = 4;

/// Why a head was refused.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// The operating system refused to read.
    Io(std::io::Error),
    /// The file contradicts itself or ends too early.
    Malformed(String),
    /// A tensor is stored in a format that cannot be read.
    UnsupportedType {
        /// The tensor's name in the file.
        tensor: String,
        /// The format's name.
        dtype: String,
    },
}

/// One tensor of the directory: inside the file, with a shape whose product is the number of stored values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorEntry {
    /// The name in the file.
    pub(super) name: String,
    /// Sizes of the dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// The number format.
    pub(super) tensor_type: TensorType,
    /// Where the data begins, from the start of the file.
    pub(super) start: u64,
    /// How many bytes the data has.
    pub(super) bytes: u64,
}

/// What the head of a file holds besides the metadata's values.
#[derive(Debug)]
pub(super) struct Header {
    /// The tensors, in the file's order.
    pub(super) tensors: Vec<TensorEntry>,
    /// The length of the head in bytes: magic, metadata and tensor directory.
    pub(super) bytes: u64,
}

/// Reads and checks the head of a file of `file_bytes` bytes.
pub(super) fn read_header(reader: impl Read, file_bytes: u64) -> Result<Header, HeaderError> {
    let mut scanner =
        Scanner { reader, position: 0, file_bytes, array_elements: 0, alignment: DEFAULT_ALIGNMENT };
    if scanner.array::<4>("the magic number")? != MAGIC {
        return Err(malformed("it does not begin with `GGUF`"));
    }
    let version = scanner.u32("the version")?;
    if !SUPPORTED_VERSIONS.contains(&version) {
        return Err(malformed(format!("version {version} is not supported (supported: 2, 3)")));
    }
    let tensor_count = scanner.u64("the tensor count")?;
    let metadata_count = scanner.u64("the metadata count")?;
    scanner.require(tensor_count, 24, "tensors")?;
    scanner.require(metadata_count, 13, "metadata entries")?;
    scanner.metadata(metadata_count)?;
    scanner.tensors(tensor_count)
}

struct Scanner<R> {
    reader: R,
    position: u64,
    file_bytes: u64,
    array_elements: u64,
    alignment: u64,
}

impl<R: Read> Scanner<R> {
    fn metadata(&mut self, count: u64) -> Result<(), HeaderError> {
        let mut keys = HashSet::new();
        for _ in 0..count {
            let key = self.string("a metadata key")?;
            let value_type = self.u32(&key)?;
            if key == "general.alignment" {
                self.read_alignment(value_type)?;
            } else {
                self.skip_value(value_type, &key, 0)?;
            }
            if !keys.insert(key.clone()) {
                return Err(malformed(format!("the metadata key {key} occurs twice")));
            }
        }
        Ok(())
    }

    fn read_alignment(&mut self, value_type: u32) -> Result<(), HeaderError> {
        if value_type != 4 {
            return Err(malformed("general.alignment is not an unsigned 32-bit integer"));
        }
        let alignment = u64::from(self.u32("general.alignment")?);
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(malformed(format!(
                "general.alignment is {alignment}, not a power of two up to 2^20"
            )));
        }
        self.alignment = alignment;
        Ok(())
    }

    fn skip_value(&mut self, value_type: u32, key: &str, depth: u32) -> Result<(), HeaderError> {
        match value_type {
            8 => self.string(key).map(drop),
            9 => self.skip_array(key, depth),
            other => self.skip(scalar_bytes(other, key)?, key),
        }
    }

    fn skip_array(&mut self, key: &str, depth: u32) -> Result<(), HeaderError> {
        if depth == MAX_ARRAY_DEPTH {
            return Err(malformed(format!("{key}: arrays are nested more than {MAX_ARRAY_DEPTH} deep")));
        }
        let element_type = self.u32(key)?;
        let count = self.u64(key)?;
        self.array_elements = self.array_elements.saturating_add(count);
        if self.array_elements > MAX_ARRAY_ELEMENTS {
            return Err(malformed(format!(
                "{key}: an array of {count} elements exceeds the limit of {MAX_ARRAY_ELEMENTS} for the metadata"
            )));
        }
        match element_type {
            8 | 9 => {
                self.require(count, 8, key)?;
                (0..count).try_for_each(|_| self.skip_value(element_type, key, depth + 1))
            }
            scalar => self.skip(scalar_bytes(scalar, key)? * count, key),
        }
    }

    fn tensors(mut self, count: u64) -> Result<Header, HeaderError> {
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        for _ in 0..count {
            let tensor = self.tensor()?;
            if !names.insert(tensor.name.clone()) {
                return Err(malformed(format!("the tensor {} occurs twice", tensor.name)));
            }
            tensors.push(tensor);
        }
        let data_start = self.position.next_multiple_of(self.alignment);
        for tensor in &mut tensors {
            let start = data_start.checked_add(tensor.start);
            let end = start.and_then(|start| start.checked_add(tensor.bytes));
            match (start, end) {
                (Some(start), Some(end)) if end <= self.file_bytes => tensor.start = start,
                _ => {
                    return Err(malformed(format!(
                        "the tensor {} lies outside the file: {} bytes at offset {} of the data, which begins at byte \
                         {data_start} of {}",
                        tensor.name, tensor.bytes, tensor.start, self.file_bytes
                    )));
                }
            }
        }
        Ok(Header { tensors, bytes: self.position })
    }

    /// A directory entry whose `start` still counts from the beginning of the data.
    fn tensor(&mut self) -> Result<TensorEntry, HeaderError> {
        let name = self.string("a tensor's name")?;
        let dimension_count = self.u32(&name)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimension_count) {
            return Err(malformed(format!("the tensor {name} has {dimension_count} dimensions, not 1 to 4")));
        }
        let mut dimensions = Vec::new();
        for _ in 0..dimension_count {
            dimensions.push(self.u64(&name)?);
        }
        let code = self.u32(&name)?;
        let start = self.u64(&name)?;
        let tensor_type = TensorType::from_code(code)
            .map_err(|dtype| HeaderError::UnsupportedType { tensor: name.clone(), dtype })?;
        let bytes = stored_bytes(&dimensions, tensor_type)
            .map_err(|reason| malformed(format!("the tensor {name} of shape {dimensions:?} {reason}")))?;
        if !start.is_multiple_of(self.alignment) {
            return Err(malformed(format!(
                "the tensor {name} begins at {start}, which is not a multiple of the alignment {}",
                self.alignment
            )));
        }
        let shape = dimensions.iter().rev().map(|&size| size as usize).collect();
        Ok(TensorEntry { name, shape, tensor_type, start, bytes })
    }

    fn string(&mut self, what: &str) -> Result<String, HeaderError> {
        let length = self.u64(what)?;
        if length > MAX_STRING_BYTES {
            return Err(malformed(format!(
                "{what}: a string of {length} bytes is longer than any that is used"
            )));
        }
        self.advance(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes).map_err(|error| read_error(error, what))?;
        String::from_utf8(bytes).map_err(|_| malformed(format!("{what}: a string is not UTF-8")))
    }

    fn u32(&mut self, what: &str) -> Result<u32, HeaderError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, HeaderError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn array<const BYTES: usize>(&mut self, what: &str) -> Result<[u8; BYTES], HeaderError> {
        self.advance(BYTES as u64, what)?;
        let mut bytes = [0; BYTES];
        self.reader.read_exact(&mut bytes).map_err(|error| read_error(error, what))?;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<(), HeaderError> {
        self.advance(bytes, what)?;
        let skipped = std::io::copy(&mut self.reader.by_ref().take(bytes), &mut std::io::sink());
        if skipped.map_err(HeaderError::Io)? < bytes {
            return Err(ends_within(what));
        }
        Ok(())
    }

    /// Refuses a count whose elements, of at least `each` bytes, cannot be in the rest of the file.
    fn require(&self, count: u64, each: u64, what: &str) -> Result<(), HeaderError> {
        let rest = self.file_bytes - self.position;
        if count.checked_mul(each).is_none_or(|bytes| bytes > rest) {
            return Err(malformed(format!("it declares {count} {what}, but only {rest} bytes follow")));
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64, what: &str) -> Result<(), HeaderError> {
        if bytes > self.file_bytes - self.position {
            return Err(ends_within(what));
        }
        self.position += bytes;
        if self.position > MAX_HEADER_BYTES {
            return Err(malformed(format!("its metadata exceeds {MAX_HEADER_BYTES} bytes")));
        }
        Ok(())
    }
}

fn scalar_bytes(value_type: u32, key: &str) -> Result<u64, HeaderError> {
    match value_type {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        other => Err(malformed(format!("{key}: {other} is not a type of metadata values"))),
    }
}

/// The bytes of a tensor whose dimensions come innermost first.
fn stored_bytes(dimensions: &[u64], tensor_type: TensorType) -> Result<u64, &'static str> {
    let values = dimensions.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
    let values = values.filter(|&values| usize::try_from(values).is_ok() && values <= i64::MAX as u64 / 4);
    let values = values.ok_or("has more values than can be addressed")?;
    if values == 0 {
        return Err("has a dimension of size 0");
    }
    if !dimensions[0].is_multiple_of(tensor_type.values as u64) {
        return Err("has rows that are not a whole number of blocks");
    }
    Ok(values / tensor_type.values as u64 * tensor_type.bytes as u64)
}

fn malformed(reason: impl Into<String>) -> HeaderError {
    HeaderError::Malformed(reason.into())
}

fn ends_within(what: &str) -> HeaderError {
    malformed(format!("it ends within {what}"))
}

fn read_error(error: std::io::Error, what: &str) -> HeaderError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { ends_within(what) } else { HeaderError::Io(error) }
}
