//! Saving a run so that it goes on where it stopped, bit for bit.
//!
//! A [`CheckpointStore`] keeps directories such as `checkpoint-000120/`, each with
//!
//! - `state.safetensors`: every tensor of a [`State`], as f32,
//! - `state.json`: everything else in it, 64-bit numbers exact,
//! - `manifest.json`: the [`Manifest`], with the size and the SHA-256 of the other two.
//!
//! A checkpoint is written under a hidden name beside its place, sent to the disk and then renamed, so it is there whole
//! or not at all. What was damaged later is found by its checksums; loading takes the newest intact one and says which
//! it passed over.

mod config;
mod error;
mod fingerprint;
mod manifest;
mod state;
mod storage;
mod store;
mod tensor_file;

pub use config::{CheckpointConfig, CheckpointConfigError, Direction, KeepBest, OnSaveFailure};
pub use error::CheckpointError;
pub use fingerprint::{Difference, Fingerprint, FingerprintBuilder, RunIdentity};
pub use manifest::{CheckpointFile, Manifest};
pub use state::{Resumable, State, StateError, StateTensor};
pub use storage::{FileSystem, Storage, StoredFile};
pub use store::{CheckpointPlace, CheckpointStore, DamagedCheckpoint, NewestCheckpoint};
