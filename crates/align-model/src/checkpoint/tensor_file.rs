//! A state's tensors as a safetensors file, written and read one tensor at a time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read as _, Write},
    path::Path,
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::{
    CheckpointError, CheckpointFile, FingerprintBuilder, State, StateError, StateTensor, StoredFile,
    manifest::io_error,
};

/// A file in the making that knows its size and checksum.
pub(super) struct Recorded {
    file: Box<dyn StoredFile>,
    bytes: u64,
    hasher: FingerprintBuilder,
}

impl Recorded {
    pub(super) fn new(file: Box<dyn StoredFile>) -> Self {
        Self { file, bytes: 0, hasher: FingerprintBuilder::new() }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Sends the file to the disk.
    pub(super) fn finish(mut self) -> io::Result<CheckpointFile> {
        self.file.flush()?;
        self.file.sync()?;
        Ok(CheckpointFile { bytes: self.bytes, sha256: self.hasher.finish() })
    }
}

/// Why tensors were not written.
pub(super) enum WriteError {
    Io(io::Error),
    State(StateError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes all tensors, in the order of their names.
pub(super) fn write(state: &State, file: &mut Recorded) -> Result<(), WriteError> {
    let mut end = 0;
    let infos: Vec<(String, TensorInfo)> = state
        .tensors
        .iter()
        .map(|(name, tensor)| {
            let start = end;
            end += 4 * tensor.shape().iter().product::<usize>();
            let info =
                TensorInfo { dtype: Dtype::F32, shape: tensor.shape().to_vec(), data_offsets: (start, end) };
            (name.clone(), info)
        })
        .collect();
    let metadata = Metadata::new(None, infos).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata).map_err(io::Error::other)?;
    // The data begins at a multiple of 8 bytes, as the format wants it.
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for (name, tensor) in &state.tensors {
        let values = tensor
            .read()
            .map_err(|source| WriteError::State(StateError::Read { name: name.clone(), source }))?;
        for piece in values.chunks(1 << 18) {
            let bytes: Vec<u8> = piece.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.write(&bytes)?;
        }
    }
    Ok(())
}

/// Reads all tensors of a file whose checksum was found right.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, StateTensor>, CheckpointError> {
    let failed = |source| io_error("read", path, source);
    let malformed = |reason: String| CheckpointError::Malformed { path: path.into(), reason };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let mut header = Vec::new();
    file.by_ref().take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(failed)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    // In the order of their places in the file, which are known to follow each other without gaps.
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        if info.dtype != Dtype::F32 {
            return Err(malformed(format!("`{name}` is of type {:?} and not f32", info.dtype)));
        }
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        file.read_exact(&mut bytes).map_err(failed)?;
        let (words, _) = bytes.as_chunks::<4>();
        let values = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        tensors.insert(name, StateTensor::from_values(info.shape.clone(), values));
    }
    Ok(tensors)
}
