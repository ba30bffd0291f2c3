//! GGUF files made by hand, byte for byte, so that tests can also make wrong ones.

use std::io::Write;

use tempfile::NamedTempFile;

/// A metadata value.
#[derive(Debug, Clone)]
pub(super) enum Field {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'static str),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// A type number and bytes that follow as they are.
    Raw(u32, Vec<u8>),
}

/// A tensor: name, dimensions innermost first, ggml's type number, data.
#[derive(Debug, Clone)]
pub(super) struct RawTensor {
    pub(super) name: String,
    pub(super) dimensions: Vec<u64>,
    pub(super) code: u32,
    pub(super) data: Vec<u8>,
}

/// A file in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Fixture {
    pub(super) fields: Vec<(String, Field)>,
    pub(super) tensors: Vec<RawTensor>,
}

impl Fixture {
    /// A file of `architecture` with 2 layers, 4 hidden units, 2 query heads and 1 key and value head.
    pub(super) fn new(architecture: &'static str) -> Self {
        let mut fixture = Self::default().field("general.architecture", Field::Text(architecture));
        for (key, size) in [
            ("embedding_length", 4),
            ("block_count", 2),
            ("feed_forward_length", 6),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("context_length", 16),
        ] {
            fixture = fixture.field(&format!("{architecture}.{key}"), Field::U32(size));
        }
        for key in ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"] {
            fixture = fixture.field(&format!("{architecture}.{key}"), Field::F32(1e-5));
        }
        fixture.counting("token_embd.weight", &[8, 4])
    }

    /// Adds a metadata entry.
    pub(super) fn field(mut self, key: &str, field: Field) -> Self {
        self.fields.push((key.to_owned(), field));
        self
    }

    /// Adds an f32 tensor with the values 0, 1, 2 … and a shape that comes outermost first.
    pub(super) fn counting(self, name: &str, shape: &[u64]) -> Self {
        let count: u64 = shape.iter().product();
        self.values(name, shape, &(0..count).map(|value| value as f32).collect::<Vec<_>>())
    }

    /// Adds an f32 tensor with a shape that comes outermost first.
    pub(super) fn values(mut self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        self.tensors.push(RawTensor {
            name: name.to_owned(),
            dimensions: shape.iter().rev().copied().collect(),
            code: 0,
            data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        self
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.fields.len() as u64).to_le_bytes());
        for (key, field) in &self.fields {
            push_text(&mut bytes, key);
            push_field(&mut bytes, field);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            push_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            bytes.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(tensor.code.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += (tensor.data.len() as u64).next_multiple_of(32);
        }
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(&tensor.data);
        }
        bytes
    }

    /// The file on disk.
    pub(super) fn file(&self) -> NamedTempFile {
        file_of(&self.bytes())
    }
}

/// A file on disk with these bytes.
pub(super) fn file_of(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
    file
}

fn push_field(bytes: &mut Vec<u8>, field: &Field) {
    let mut push = |code: u32, payload: &[u8]| {
        bytes.extend(code.to_le_bytes());
        bytes.extend(payload);
    };
    match field {
        Field::U32(value) => push(4, &value.to_le_bytes()),
        Field::F32(value) => push(6, &value.to_le_bytes()),
        Field::Bool(value) => push(7, &[u8::from(*value)]),
        Field::Text(value) => {
            push(8, &[]);
            push_text(bytes, value);
        }
        Field::Texts(values) => {
            push(9, &array_head(8, values.len()));
            for value in values {
                push_text(bytes, value);
            }
        }
        Field::F32s(values) => {
            push(9, &array_head(6, values.len()));
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Field::I32s(values) => {
            push(9, &array_head(5, values.len()));
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Field::Raw(code, payload) => push(*code, payload),
    }
}

fn array_head(code: u32, count: usize) -> Vec<u8> {
    [&code.to_le_bytes()[..], &(count as u64).to_le_bytes()[..]].concat()
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
