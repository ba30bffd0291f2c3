//! Models on disk: what is saved loads again, and what is wrong is said.

mod bad_configs;
mod bad_weights;
mod configs;
mod layouts;
mod models;
mod round_trips;
mod saving;
