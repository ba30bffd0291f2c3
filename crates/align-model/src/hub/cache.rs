//! The directory that Python's `huggingface_hub` and `hf-hub` also use.
//!
//! ```text
//! models--owner--name/refs/main               the commit that `main` was when it was last asked for
//! models--owner--name/snapshots/COMMIT/FILE   a link to
//! models--owner--name/blobs/ETAG              the content, whole and checked
//! models--owner--name/blobs/ETAG.incomplete   a content that is on its way
//! .locks/models--owner--name/ETAG.lock        held by whoever downloads it
//! ```

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use hf_hub::Repo;

use super::{HubError, reference::is_inside, repository::Asked};

/// A repository's part of the cache.
#[derive(Debug)]
pub(super) struct RepositoryCache {
    root: PathBuf,
    folder: String,
}

/// What a cached revision consists of.
#[derive(Debug)]
pub(super) struct CachedSnapshot {
    pub(super) commit: String,
    /// Paths inside the repository, sorted.
    pub(super) files: Vec<String>,
}

impl RepositoryCache {
    pub(super) fn new(root: &Path, asked: Asked<'_>) -> Self {
        let repo = Repo::new(asked.repository.into(), asked.kind.repo_type());
        Self { root: root.into(), folder: repo.folder_name() }
    }

    /// Where the files of a commit lie.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.directory().join("snapshots").join(commit)
    }

    /// Where a file of a commit lies.
    pub(super) fn file(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshot(commit).join(file)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.directory().join("blobs").join(etag)
    }

    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.directory().join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The files of a revision that are here.
    pub(super) fn cached(&self, revision: &str) -> Result<Option<CachedSnapshot>, HubError> {
        let path = self.reference(revision);
        let commit = match fs::read_to_string(&path) {
            Ok(commit) if is_commit(commit.trim()) => commit.trim().to_owned(),
            _ if is_commit(revision) => revision.to_owned(),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HubError::Io { action: "read", path, source }),
        };
        let snapshot = self.snapshot(&commit);
        let mut files = Vec::new();
        collect(&snapshot, "", &mut files).map_err(HubError::io("read", snapshot))?;
        files.sort_unstable();
        Ok(Some(CachedSnapshot { commit, files }))
    }

    /// Remembers what a revision is. Whoever reads meanwhile sees the old commit or the new one.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.reference(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.root);
        let written = fs::create_dir_all(parent).and_then(|()| {
            let mut builder = tempfile::Builder::new();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                builder.permissions(fs::Permissions::from_mode(0o666));
            }
            let file = builder.tempfile_in(parent)?;
            fs::write(file.path(), commit)?;
            file.persist(&path)?;
            Ok(())
        });
        written.map_err(HubError::io("write", path))
    }

    /// Makes a content visible as a file of a commit.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf, HubError> {
        let path = self.file(commit, file);
        let up = "../".repeat(file.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(HubError::io("write", parent))?;
        if !path.exists() {
            // Renamed over a link that leads nowhere, never removed first: whoever else has just made the same link
            // already reads through it.
            let made = tempfile::Builder::new()
                .make_in(self.directory().join("blobs"), |new| make_link(&target, &self.blob(etag), new));
            made.and_then(|new| Ok(new.persist(&path)?)).map_err(HubError::io("write", &path))?;
        }
        Ok(path)
    }

    /// Keeps other programs from downloading the same content, until the returned file is dropped. Where another one
    /// does already, says so through `shared` and waits for it.
    pub(super) fn lock(&self, etag: &str, shared: impl FnOnce()) -> Result<File, HubError> {
        let directory = self.root.join(".locks").join(&self.folder);
        let path = directory.join(format!("{etag}.lock"));
        let locked = fs::create_dir_all(&directory).and_then(|()| {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    shared();
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            Ok(file)
        });
        locked.map_err(HubError::io("lock", path))
    }

    fn directory(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.directory().join("refs").join(revision)
    }
}

/// Whether a text is the full name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(unix)]
fn make_link(target: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need a privilege on Windows; the content itself does as well, as `huggingface_hub` has it.
#[cfg(windows)]
fn make_link(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    let target: PathBuf = target.components().collect();
    std::os::windows::fs::symlink_file(target, path).or_else(|_| fs::hard_link(blob, path))
}

#[cfg(not(any(unix, windows)))]
fn make_link(_target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path)
}

/// Every file under a directory that leads somewhere, by its path with `/`.
fn collect(directory: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else if path.is_file() && is_inside(&name) {
            files.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{HubReference, RepositoryKind};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(root: &Path) -> RepositoryCache {
        let reference: HubReference = "a/b".parse().unwrap();
        RepositoryCache::new(root, Asked::new(RepositoryKind::Dataset, &reference))
    }

    #[test]
    fn the_layout_is_the_usual_one() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        assert!(cache.cached("main").unwrap().is_none());
        let base = root.path().join("datasets--a--b");
        fs::create_dir_all(base.join("blobs")).unwrap();
        fs::write(cache.blob("e1"), "content").unwrap();
        let linked = cache.link(COMMIT, "data/x.csv", "e1").unwrap();
        cache.link(COMMIT, "data/x.csv", "e1").unwrap();
        assert_eq!(linked, base.join("snapshots").join(COMMIT).join("data/x.csv"));
        assert_eq!(fs::read_to_string(&linked).unwrap(), "content");
        #[cfg(unix)]
        assert_eq!(fs::read_link(&linked).unwrap(), Path::new("../../../blobs/e1"));
        assert!(cache.cached("main").unwrap().is_none(), "no one has said what main is");
        cache.remember("refs/pr/1", COMMIT).unwrap();
        assert_eq!(fs::read_to_string(base.join("refs/refs/pr/1")).unwrap(), COMMIT);
        for revision in ["refs/pr/1", COMMIT] {
            let cached = cache.cached(revision).unwrap().unwrap();
            assert_eq!(
                (cached.commit.as_str(), cached.files.as_slice()),
                (COMMIT, &["data/x.csv".into()][..])
            );
        }
        fs::remove_file(cache.blob("e1")).unwrap();
        assert_eq!(cache.cached(COMMIT).unwrap().unwrap().files, [""; 0], "a link that leads nowhere");
    }

    #[test]
    fn whoever_links_finds_the_file_while_others_link_it_too() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let blobs = root.path().join("datasets--a--b/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(cache.blob("e1"), "content").unwrap();
        for round in 0..50 {
            let file = format!("{round}/x.csv");
            #[cfg(unix)]
            {
                let dead = cache.file(COMMIT, &file);
                fs::create_dir_all(dead.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink("nowhere", dead).unwrap();
            }
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        let linked = cache.link(COMMIT, &file, "e1").unwrap();
                        assert_eq!(fs::read_to_string(linked).unwrap(), "content", "{file}");
                    });
                }
            });
        }
        assert_eq!(fs::read_dir(blobs).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let held = cache.lock("e1", || panic!("no one else")).unwrap();
        let waiting = std::thread::scope(|scope| {
            let (said, heard) = std::sync::mpsc::channel();
            let cache = &cache;
            let second = scope.spawn(move || cache.lock("e1", || said.send(()).unwrap()).is_ok());
            heard.recv().unwrap();
            drop(held);
            second.join().unwrap()
        });
        assert!(waiting);
        assert!(root.path().join(".locks/datasets--a--b/e1.lock").exists());
    }
}
