//! Rewards: models, functions, judges and guards.

pub mod rollout;

pub mod score;

pub mod function;

pub mod rules;
