//! Learning from scores.
