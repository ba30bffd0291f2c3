//! A directory of checkpoints.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    CheckpointConfig, CheckpointError, CheckpointFile, FileSystem, KeepBest, Manifest, RunIdentity, State,
    Storage,
    manifest::{FORMAT, MANIFEST, io_error},
    storage::sync_directory,
    tensor_file::{self, Recorded, WriteError},
};

const TENSORS: &str = "state.safetensors";
const VALUES: &str = "state.json";
const PREFIX: &str = "checkpoint-";
/// Ends the hidden name of a checkpoint that is not yet one.
const PARTIAL: &str = ".partial";
/// Ends the hidden name of a checkpoint that is one no longer.
const REMOVED: &str = ".removed";

/// The checkpoints of one run, in one directory. Two runs must not share it.
#[derive(Debug)]
pub struct CheckpointStore {
    directory: PathBuf,
    identity: RunIdentity,
    config: CheckpointConfig,
    storage: Box<dyn Storage>,
    intact: BTreeMap<u64, Manifest>,
    damaged: Vec<DamagedCheckpoint>,
}

/// A checkpoint that cannot be used.
#[derive(Debug)]
pub struct DamagedCheckpoint {
    /// Its directory.
    pub path: PathBuf,
    /// What is wrong with it; names the file.
    pub reason: Box<CheckpointError>,
}

/// Where a run can go on.
#[derive(Debug)]
pub struct NewestCheckpoint<'a> {
    /// Its directory.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Newer ones, damaged.
    pub passed_over: Vec<&'a DamagedCheckpoint>,
}

impl fmt::Display for DamagedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        // An operating system's reason says more than what was being done.
        std::error::Error::source(&self.reason).map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl DamagedCheckpoint {
    pub(super) fn list(all: &[Self]) -> String {
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl CheckpointStore {
    /// Opens the directory, which is made if need be, and removes what a killed run left half done.
    ///
    /// # Errors
    /// If the directory cannot be made, read or cleaned.
    pub fn open(
        directory: &Path,
        identity: RunIdentity,
        config: CheckpointConfig,
    ) -> Result<Self, CheckpointError> {
        fs::create_dir_all(directory).map_err(|source| io_error("create", directory, source))?;
        let mut store = Self {
            directory: directory.into(),
            identity,
            config,
            storage: Box::new(FileSystem),
            intact: BTreeMap::new(),
            damaged: Vec::new(),
        };
        store.look()?;
        Ok(store)
    }

    /// Writes through `storage` instead of straight into the file system.
    #[must_use]
    pub fn with_storage(mut self, storage: impl Storage + 'static) -> Self {
        self.storage = Box::new(storage);
        self
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &CheckpointConfig {
        &self.config
    }

    /// Where the checkpoints are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the checkpoint of a step.
    #[must_use]
    pub fn path(&self, step: u64) -> PathBuf {
        self.directory.join(name(step))
    }

    /// All checkpoints that are thought to be intact, oldest first.
    #[must_use]
    pub fn manifests(&self) -> impl DoubleEndedIterator<Item = &Manifest> {
        self.intact.values()
    }

    /// Those that were found damaged.
    #[must_use]
    pub fn damaged(&self) -> &[DamagedCheckpoint] {
        &self.damaged
    }

    /// The newest checkpoint whose every byte is what was written; `None` if there is no checkpoint at all.
    ///
    /// # Errors
    /// If it belongs to another run, or there are only damaged ones.
    pub fn newest(&mut self) -> Result<Option<NewestCheckpoint<'_>>, CheckpointError> {
        while let Some((&step, manifest)) = self.intact.last_key_value() {
            let path = self.directory.join(name(step));
            let Err(reason) = manifest.verify(&path) else { break };
            self.intact.remove(&step);
            self.damaged.push(DamagedCheckpoint { path, reason: Box::new(reason) });
        }
        let Some((&step, manifest)) = self.intact.last_key_value() else {
            if self.damaged.is_empty() {
                return Ok(None);
            }
            let damaged = std::mem::take(&mut self.damaged);
            return Err(CheckpointError::NoneIntact { directory: self.directory.clone(), damaged });
        };
        let path = self.path(step);
        let differences = self.identity.differences(&manifest.identity);
        if !differences.is_empty() {
            return Err(CheckpointError::OtherRun { path, differences });
        }
        let passed_over =
            self.damaged.iter().filter(|d| step_of(&d.path).is_some_and(|s| s > step)).collect();
        Ok(Some(NewestCheckpoint { path, manifest: manifest.clone(), passed_over }))
    }

    /// The checkpoint that `keep_best` keeps; of equals the oldest.
    #[must_use]
    pub fn best(&self) -> Option<&Manifest> {
        let KeepBest { metric, direction } = self.config.keep_best.as_ref()?;
        let value = |manifest: &Manifest| manifest.metrics.get(metric).copied();
        let mut candidates = self.intact.values().filter_map(|manifest| Some((value(manifest)?, manifest)));
        let first = candidates.next()?;
        let better = |best: (f64, _), next: (f64, _)| {
            if direction.improvement(next.0, best.0) > 0.0 { next } else { best }
        };
        Some(candidates.fold(first, better).1)
    }

    /// Reads the state of a checkpoint, after comparing its checksums.
    ///
    /// # Errors
    /// If there is none of this step, it is damaged, or it cannot be read.
    pub fn load(&self, step: u64) -> Result<State, CheckpointError> {
        let path = self.path(step);
        Manifest::read(&path)?.verify(&path)?;
        self.read_state(step)
    }

    /// Reads the state of a checkpoint whose checksums were compared.
    pub(crate) fn read_state(&self, step: u64) -> Result<State, CheckpointError> {
        let path = self.path(step);
        let tensors = tensor_file::read(&path.join(TENSORS))?;
        let values = path.join(VALUES);
        let text = fs::read(&values).map_err(|source| io_error("read", &values, source))?;
        let values = serde_json::from_slice(&text)
            .map_err(|error| CheckpointError::Malformed { path: values, reason: error.to_string() })?;
        Ok(State { tensors, values })
    }

    /// Writes a checkpoint, then removes those that are no longer kept.
    ///
    /// # Errors
    /// If it cannot be written: what was there before stands, and nothing else is left. If an old one cannot be removed.
    ///
    /// # Panics
    /// If an intact checkpoint of this or a later step is there: the run must be resumed from it, or begin in another
    /// directory.
    pub fn save(&mut self, place: CheckpointPlace, state: &State) -> Result<&Manifest, CheckpointError> {
        let step = place.step;
        let newer = self.intact.range(step..).next().map(|(step, _)| self.path(*step));
        assert!(newer.is_none(), "{newer:?} is newer than step {step}: resume from it or remove it");
        let partial = self.hidden(step, PARTIAL);
        let written = self.write(&partial, place, state).and_then(|manifest| {
            self.remove(step)?;
            let path = self.path(step);
            fs::rename(&partial, &path).map_err(|source| io_error("create", &path, source))?;
            sync_directory(&self.directory).map_err(|source| io_error("write", &self.directory, source))?;
            Ok(manifest)
        });
        let manifest = written.inspect_err(|_| {
            // Best effort: the error that led here is the one worth reporting.
            let _ = fs::remove_dir_all(&partial);
        })?;
        self.damaged.retain(|damaged| step_of(&damaged.path) != Some(step));
        self.intact.insert(step, manifest);
        self.prune()?;
        Ok(&self.intact[&step])
    }

    /// Removes every checkpoint, damaged ones included.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn clear(&mut self) -> Result<(), CheckpointError> {
        let damaged = self.damaged.drain(..).filter_map(|damaged| step_of(&damaged.path));
        let steps: Vec<u64> = self.intact.keys().copied().chain(damaged).collect();
        self.intact.clear();
        steps.into_iter().try_for_each(|step| self.remove(step))
    }

    fn hidden(&self, step: u64, ending: &str) -> PathBuf {
        self.directory.join(format!(".{}{ending}", name(step)))
    }

    /// Finds out what is there and removes leftovers.
    fn look(&mut self) -> Result<(), CheckpointError> {
        let failed = |source| io_error("read", &self.directory, source);
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.sort_unstable();
        for path in paths {
            if is_leftover(&path) {
                fs::remove_dir_all(&path).map_err(|source| io_error("remove", &path, source))?;
            } else if let Some(step) = step_of(&path) {
                match Manifest::read(&path) {
                    Ok(manifest) => _ = self.intact.insert(step, manifest),
                    Err(reason) => {
                        self.damaged.push(DamagedCheckpoint { path, reason: Box::new(reason) });
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills a directory and sends it to the disk.
    fn write(
        &self,
        partial: &Path,
        place: CheckpointPlace,
        state: &State,
    ) -> Result<Manifest, CheckpointError> {
        if partial.exists() {
            fs::remove_dir_all(partial).map_err(|source| io_error("remove", partial, source))?;
        }
        fs::create_dir(partial).map_err(|source| io_error("create", partial, source))?;
        let values = serde_json::to_vec(&state.values).map_err(std::io::Error::other);
        let mut files = BTreeMap::new();
        files.insert(
            TENSORS.to_owned(),
            self.write_file(partial, TENSORS, |file| tensor_file::write(state, file))?,
        );
        files.insert(VALUES.to_owned(), self.write_file(partial, VALUES, |file| Ok(file.write(&values?)?))?);
        let CheckpointPlace { step, total_steps, batches_taken, finished, metrics } = place;
        let metrics = metrics.into_iter().filter(|(_, value)| value.is_finite()).collect();
        let identity = self.identity.clone();
        let manifest =
            Manifest { format: FORMAT, step, total_steps, batches_taken, finished, metrics, identity, files };
        let text = manifest.to_text().map_err(std::io::Error::other);
        self.write_file(partial, MANIFEST, |file| Ok(file.write(text?.as_bytes())?))?;
        sync_directory(partial).map_err(|source| io_error("write", partial, source))?;
        Ok(manifest)
    }

    fn write_file(
        &self,
        directory: &Path,
        name: &str,
        fill: impl FnOnce(&mut Recorded) -> Result<(), WriteError>,
    ) -> Result<CheckpointFile, CheckpointError> {
        let path = directory.join(name);
        let failed = |source| io_error("write", &path, source);
        let mut written = Recorded::new(self.storage.create(&path).map_err(failed)?);
        fill(&mut written).map_err(|error| match error {
            WriteError::Io(source) => failed(source),
            WriteError::State(source) => {
                CheckpointError::State { path: directory.into(), source: Box::new(source) }
            }
        })?;
        written.finish().map_err(failed)
    }

    /// Removes what is neither among the newest nor the best.
    fn prune(&mut self) -> Result<(), CheckpointError> {
        let best = self.best().map(|best| best.step);
        let surplus = self.intact.len().saturating_sub(self.config.keep_last.get());
        let old: Vec<u64> =
            self.intact.keys().copied().take(surplus).filter(|&step| Some(step) != best).collect();
        for step in old {
            self.remove(step)?;
            self.intact.remove(&step);
        }
        Ok(())
    }

    /// Removes a checkpoint, if it is there. It is renamed first, so that no one takes the rest of it for a damaged one.
    fn remove(&self, step: u64) -> Result<(), CheckpointError> {
        let (path, hidden) = (self.path(step), self.hidden(step, REMOVED));
        if path.exists() {
            fs::rename(&path, &hidden).map_err(|source| io_error("remove", &path, source))?;
            fs::remove_dir_all(&hidden).map_err(|source| io_error("remove", &path, source))?;
        }
        Ok(())
    }
}

/// Where a run stands when a checkpoint is made.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointPlace {
    /// Steps made.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Batches taken.
    pub batches_taken: u64,
    /// Whether the run is over.
    pub finished: bool,
    /// What was measured at this step.
    pub metrics: BTreeMap<String, f64>,
}

fn name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// The step of a checkpoint's directory.
fn step_of(path: &Path) -> Option<u64> {
    let step = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    path.ends_with(name(step)).then_some(step)
}

fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_prefix('.')
        .is_some_and(|rest| rest.starts_with(PREFIX) && (rest.ends_with(PARTIAL) || rest.ends_with(REMOVED)))
}
