//! Rewards that a program can check: answers, formats, lengths, repetitions, schemas.

mod answer;
mod exact;
mod json;
mod length;
mod math;
mod number;
mod pattern;
mod repetition;

pub use answer::{AnswerFormat, Extraction, Truth};
pub use exact::{ExactMatch, Normalization};
pub use json::{JsonSchema, JsonSchemaConfig, SchemaError};
pub use length::{CosineLength, CosineValues, Length, LengthUnit, SoftOverlongPunishment};
pub use math::MathEquality;
pub use number::{NumericEquality, parse_number};
pub use pattern::{Finished, MatchMode, Pattern, PatternConfig, PatternError, ThinkFormat};
pub use repetition::{RepetitionPenalty, RepetitionUnit};
