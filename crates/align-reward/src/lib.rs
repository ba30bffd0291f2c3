//! Rewards: models, functions, judges and guards.

pub mod loss;

pub mod model;

pub mod trainer;
