//! Learning from preferences.
