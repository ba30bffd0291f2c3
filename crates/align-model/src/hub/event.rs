//! What a caller hears of a download.

use std::time::Duration;

use super::HubError;

/// Something that happened on the way to a file. Events of one file follow each other; files come one at a time.
#[derive(Debug)]
#[non_exhaustive]
pub enum DownloadEvent<'a> {
    /// Another program downloads the same file; its end is awaited.
    Shared {
        /// The file's path in its repository.
        file: &'a str,
    },
    /// A transfer begins.
    Started {
        /// The file's path in its repository.
        file: &'a str,
        /// Its size in bytes, where the server tells.
        size: Option<u64>,
        /// Bytes that an earlier transfer left.
        present: u64,
    },
    /// Bytes have arrived.
    Advanced {
        /// How many, since the last event.
        bytes: u64,
    },
    /// What had arrived is of no use, and the transfer begins at the first byte again.
    Restarted,
    /// A request failed and is made again after a pause.
    Waiting {
        /// Why it failed.
        reason: &'a HubError,
        /// How long the pause is.
        pause: Duration,
    },
    /// A file has arrived as the Hub describes it.
    Finished {
        /// The file's path in its repository.
        file: &'a str,
    },
    /// The Hub does not answer, and everything is in the cache: that is used, though there may be a newer revision.
    Cached {
        /// Why the Hub could not be asked.
        reason: &'a HubError,
    },
}

/// Who hears of a download.
pub type DownloadListener<'a> = dyn FnMut(DownloadEvent<'_>) + 'a;
