//! Rewards: models, functions, judges and guards.
