//! Data sets as the user names them: files, patterns, data sets of the Hub.

use std::path::Path;

use align_model::data::{Dataset, DatasetConfig, Record, SourceConfig, read};
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

/// A data set with the names of the Hub replaced by the files that they were downloaded to.
fn on_this_machine(config: &DatasetConfig) -> Result<DatasetConfig> {
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
