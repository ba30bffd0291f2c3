//! What can go wrong with checkpoints.

use std::{io, path::PathBuf};

use super::{DamagedCheckpoint, Difference, StateError};

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused; a full disk is one reason.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is shorter or longer than it was written.
    #[error("{} has {found} bytes and was written with {expected}: the checkpoint is damaged", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it had.
        expected: u64,
    },
    /// A file has other contents than it was written with.
    #[error("{} is not what was written: its SHA-256 is another; the checkpoint is damaged", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what its name says.
    #[error("{} cannot be read: {reason}; the checkpoint is damaged", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint was written by a version of this program that this one does not know.
    #[error("{} has format {found}, and this program reads format {known}", path.display())]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The format of the checkpoint.
        found: u64,
        /// The format that is known.
        known: u64,
    },
    /// The checkpoint belongs to a run with other settings, data or model.
    #[error(
        "{} belongs to another run: {}; resume with what it was made with, or start anew in another directory",
        path.display(),
        Difference::list(differences)
    )]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// There are checkpoints, and all of them are damaged.
    #[error("no checkpoint in {} is intact: {}", directory.display(), DamagedCheckpoint::list(damaged))]
    NoneIntact {
        /// Where they are.
        directory: PathBuf,
        /// All of them.
        damaged: Vec<DamagedCheckpoint>,
    },
    /// The state does not fit what is to be restored, or could not be collected.
    #[error("checkpoint {}", path.display())]
    State {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<StateError>,
    },
    /// No checkpoint of a whole run had the metric by which the best is chosen.
    #[error("`keep_best.metric` = \"{metric}\": no checkpoint had such a metric; the last one had {known}")]
    NoSuchMetric {
        /// `keep_best.metric`
        metric: String,
        /// Metrics of the last checkpoint.
        known: String,
    },
}
