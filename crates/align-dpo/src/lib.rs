//! Learning from preferences.

pub mod loss;
