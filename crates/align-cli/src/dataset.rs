//! Data sets as the user names them: files, patterns, data sets of the Hub.

use std::{num::NonZeroUsize, path::Path};

use align_model::data::{Dataset, DatasetConfig, Record, SourceConfig, read, stream};
use anyhow::Result;

use crate::hub;

/// The paths of a data set, for people.
pub(crate) fn named(config: &DatasetConfig) -> String {
    config.sources.iter().map(|source| source.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// Reads the records of a data set.
pub(crate) fn records<R: Record>(config: &DatasetConfig) -> Result<Dataset<R>> {
    Ok(read(&on_this_machine(config)?.files)?)
}

/// The first `count` records of a data set, in the order of its files, and whether there are no more.
pub(crate) fn first_records<R: Record>(
    config: &DatasetConfig,
    count: NonZeroUsize,
) -> Result<(Dataset<R>, bool)> {
    let mut stream = stream(config)?;
    let records: Vec<_> = stream.by_ref().take(count.get()).collect::<Result<_, _>>()?;
    // What stands in the way of a record further on is for the run to say.
    let is_whole = stream.next().is_none();
    Ok((Dataset { records, skipped: stream.into_skipped() }, is_whole))
}

/// A data set whose files are on this machine.
#[derive(Debug)]
pub(crate) struct LocalDataset {
    /// With the names of the Hub replaced by the files that they were downloaded to.
    pub(crate) files: DatasetConfig,
    /// The names of its sources, for people, where the user named several; else none.
    pub(crate) slices: Vec<String>,
}

/// Downloads what a data set has on the Hub.
pub(crate) fn on_this_machine(config: &DatasetConfig) -> Result<LocalDataset> {
    let (mut sources, mut slices) = (Vec::new(), Vec::new());
    for source in &config.sources {
        let files = if source.path.contains(['*', '?']) {
            vec![source.path.clone().into()]
        } else {
            hub::data_files(Path::new(&source.path))?
        };
        for file in files {
            sources.push(SourceConfig { path: file.to_string_lossy().into_owned(), ..source.clone() });
            slices.push(slice(&source.path, config));
        }
    }
    if config.sources.len() < 2 {
        slices.clear();
    }
    Ok(LocalDataset { files: DatasetConfig { sources, combine: config.combine }, slices })
}

/// The name of a source's file without its endings, or its whole path where that is another's name too.
fn slice(path: &str, config: &DatasetConfig) -> String {
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.split('.').next().unwrap_or(name).to_owned()
    };
    let own = stem(path);
    let is_unique = config.sources.iter().filter(|source| stem(&source.path) == own).count() == 1;
    if is_unique && !own.is_empty() { own } else { path.to_owned() }
}
