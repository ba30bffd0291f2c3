//! Whether a reward measures what it should: what it goes by, how far it can be trusted, when to stop following it.

mod agreement;
mod calibration;
mod correlation;
mod feature;
mod overoptimization;

pub use agreement::{Agreement, agreement_by_slice};
pub use calibration::{Calibration, ReliabilityBin, calibration};
pub use correlation::{Correlation, Interval, bootstrap_pearson, pearson, ranks, spearman, wilson_interval};
pub use feature::{Feature, FeatureReport, RewardAudit};
pub use overoptimization::{
    Alarm, Decision, GoldCurve, OptimizationPoint, OveroptimizationConfig, OveroptimizationMonitor,
};
