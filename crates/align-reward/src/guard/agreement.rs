//! How often a judge agrees with people, slice by slice.

use align_model::number::ProperFraction;
use serde::{Deserialize, Serialize};

use super::{Interval, wilson_interval};

/// How often a judge is right on a slice of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The slice's name.
    pub slice: String,
    /// Where it agrees.
    pub right: usize,
    /// Where it does not.
    pub wrong: usize,
    /// Where it says nothing.
    pub unjudged: usize,
    /// The part of those judged on which it agrees; `None` without any.
    pub accuracy: Option<f64>,
    /// Wilson's interval of that part.
    pub interval: Interval,
}

/// Counts agreement by slice, in the order in which slices first appear: rows are a slice's name and whether the
/// judge agrees, or `None` where it says nothing.
///
/// ```
/// use align_reward::guard::agreement_by_slice;
///
/// let rows = [("maths", Some(true)), ("code", Some(false)), ("maths", None), ("maths", Some(true))];
/// let slices = agreement_by_slice(rows, align_model::number::ProperFraction::new(0.95));
/// assert_eq!((slices[0].right, slices[0].unjudged, slices[1].accuracy), (2, 1, Some(0.0)));
/// ```
pub fn agreement_by_slice<S: Into<String>>(
    rows: impl IntoIterator<Item = (S, Option<bool>)>,
    confidence: ProperFraction,
) -> Vec<Agreement> {
    let mut slices: Vec<Agreement> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (slice, agrees) in rows {
        let slice = slice.into();
        let place = *places.entry(slice.clone()).or_insert(slices.len());
        if place == slices.len() {
            let interval = Interval { low: 0.0, high: 1.0 };
            slices.push(Agreement { slice, right: 0, wrong: 0, unjudged: 0, accuracy: None, interval });
        }
        match agrees {
            Some(true) => slices[place].right += 1,
            Some(false) => slices[place].wrong += 1,
            None => slices[place].unjudged += 1,
        }
    }
    for slice in &mut slices {
        let judged = slice.right + slice.wrong;
        slice.accuracy = (judged > 0).then(|| slice.right as f64 / judged as f64);
        slice.interval = wilson_interval(slice.right, judged, confidence);
    }
    slices
}
