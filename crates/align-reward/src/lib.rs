//! Rewards: models, functions, judges and guards.

pub mod rollout;

pub mod score;

pub mod function;

pub mod rules;

pub mod compose;

pub mod judge;

pub mod best_of_n;

pub mod command;

pub mod http;

pub mod spec;

pub mod guard;
