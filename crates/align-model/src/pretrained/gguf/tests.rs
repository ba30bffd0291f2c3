//! Tests that go through whole files.

mod hostile;
mod layouts;
mod models;
mod tokenizers;
