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
    Ok(read(&on_this_machine(config)?)?)
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

/// A data set with the names of the Hub replaced by the files that they were downloaded to.
pub(crate) fn on_this_machine(config: &DatasetConfig) -> Result<DatasetConfig> {
    let mut sources = Vec::new();
    for source in &config.sources {
        if source.path.contains(['*', '?']) {
            sources.push(source.clone());
            continue;
        }
        for file in hub::data_files(Path::new(&source.path))? {
            sources.push(SourceConfig { path: file.to_string_lossy().into_owned(), ..source.clone() });
        }
    }
    Ok(DatasetConfig { sources, combine: config.combine })
}
