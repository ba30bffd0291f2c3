//! Generation: choosing tokens.

pub mod sampling;

pub use sampling::{Choice, Decoding, Distribution, Kept, Sampling, SamplingConfig, SamplingError};
