//! Generation: prompts in, tokens out, with their log-probabilities.

mod completer;
mod config;
mod generator;
mod row;
pub mod sampling;
mod text;

pub use completer::{CompleteError, Completer, Completion, LocalCompleter};
pub use config::{GenerationConfig, StopAt};
pub use generator::{GenerateError, Request, Sampled, generate, generate_requests, generate_streaming};
pub use row::{Finish, Generation};
pub use sampling::{Choice, Decoding, Distribution, Kept, Sampling, SamplingConfig, SamplingError};
pub use text::TextStream;
