//! What can go wrong between a tokenizer's files and its tokens.

use std::path::PathBuf;

/// A tokenizer could not be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The directory has no `tokenizer.json`.
    #[error(
        "{}: there is no tokenizer.json: save the tokenizer with transformers' \
         AutoTokenizer.from_pretrained(…).save_pretrained(…), or copy the file next to the weights",
        .directory.display()
    )]
    Missing {
        /// The directory.
        directory: PathBuf,
    },
    /// The operating system refused a file.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{}: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key of the tokenizer configuration has a value that makes no sense.
    #[error("{}: {key}: {reason}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer cannot take what its configuration says.
    #[error("the tokenizer cannot be set up: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// A text has no tokens.
    #[error("the text cannot be tokenized: {reason}")]
    Encode {
        /// What is wrong.
        reason: String,
    },
    /// Tokens have no text.
    #[error("the tokens cannot be decoded: {reason}")]
    Decode {
        /// What is wrong.
        reason: String,
    },
}
