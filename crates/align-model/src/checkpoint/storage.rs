//! Where checkpoints' files are written: the file system, or something that fails as one does.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::Path,
};

/// Opens the files that a checkpoint is written to.
pub trait Storage: fmt::Debug {
    /// Makes a new file.
    ///
    /// # Errors
    /// If it cannot be made.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;
}

/// A file that can be sent to the disk.
pub trait StoredFile: Write {
    /// Returns when everything written has reached the disk.
    ///
    /// # Errors
    /// If it did not.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSystem;

impl Storage for FileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(File::create(path)?))
    }
}

impl StoredFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Sends a directory's entries to the disk, where the system knows such a thing.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
