//! A disk that is full: what was there before stands.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use align_model::checkpoint::{CheckpointError, Storage, StoredFile};

use crate::workplace::{assert_is_state, names, open, place, state, with_steps};

/// A disk with room for so many bytes.
#[derive(Debug, Clone)]
struct SmallDisk(Arc<AtomicUsize>);

struct OnSmallDisk {
    file: File,
    room: Arc<AtomicUsize>,
}

impl Storage for SmallDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(OnSmallDisk { file: File::create(path)?, room: self.0.clone() }))
    }
}

impl Write for OnSmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room.load(Ordering::Relaxed);
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.room.fetch_sub(written, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl StoredFile for OnSmallDisk {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

#[test]
fn wherever_the_disk_is_full_the_checkpoint_before_stands() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_steps(directory.path(), &[10]);
    let files = fs::read_dir(store.path(10)).unwrap();
    let bytes: usize = files.map(|file| file.unwrap().metadata().unwrap().len() as usize).sum();
    let room = Arc::new(AtomicUsize::new(0));
    let mut store = store.with_storage(SmallDisk(room.clone()));
    for full_after in (0..bytes - 2).step_by(13).chain([bytes - 2]) {
        room.store(full_after, Ordering::Relaxed);
        let error = store.save(place(20, &[("loss", 0.1)]), &state(20)).unwrap_err();
        let CheckpointError::Io { action: "write", path, source } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert!(path.starts_with(directory.path()), "{}", path.display());
        assert_eq!(names(directory.path()), ["checkpoint-000010"], "nothing else is left");
    }
    assert_eq!(store.newest().unwrap().unwrap().manifest.step, 10);
    room.store(usize::MAX, Ordering::Relaxed);
    store.save(place(20, &[("loss", 0.1)]), &state(20)).unwrap();
    assert_is_state(store.load(20).unwrap(), 20);
    assert_is_state(open(directory.path()).load(10).unwrap(), 10);
}

/// The device that is always full.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct FullDevice;

#[cfg(target_os = "linux")]
impl Storage for FullDevice {
    fn create(&self, _path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(File::options().write(true).open("/dev/full")?))
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_s_own_full_device_is_a_typed_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = with_steps(directory.path(), &[10]).with_storage(FullDevice);
    let error = store.save(place(20, &[("loss", 0.1)]), &state(20)).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{error:?}"
    );
    assert_eq!(names(directory.path()), ["checkpoint-000010"]);
}
