//! What holds of every composition, whatever the parts say.

use proptest::prelude::*;

use super::*;
use crate::{
    function::{batch_fn, each_fn, score_rollouts},
    rollout::Rollout,
    rules::LengthUnit,
    score::Score,
};

fn score() -> impl Strategy<Value = Score> {
    prop_oneof![
        5 => (-100i32..100).prop_map(|value| Score::Value(f64::from(value) / 8.0)),
        1 => Just(Score::unscored("no answer")),
    ]
}

/// Rows of scores that two parts give, with a length.
fn rows() -> impl Strategy<Value = Vec<(Score, Score, usize)>> {
    prop::collection::vec((score(), score(), 0usize..30), 1..12)
}

fn rollouts(rows: &[(Score, Score, usize)]) -> Vec<Rollout> {
    rows.iter().enumerate().map(|(n, row)| Rollout::new("p", "x".repeat(row.2)).in_group(n as u64)).collect()
}

/// Gives the scores of one column, by the rollout's number.
fn part(rows: &[(Score, Score, usize)], pick: fn(&(Score, Score, usize)) -> &Score) -> BoxedReward {
    let scores: Vec<Score> = rows.iter().map(|row| pick(row).clone()).collect();
    Box::new(each_fn("part", move |rollout: &Rollout| scores[rollout.group as usize].clone()))
}

fn first(rows: &[(Score, Score, usize)]) -> BoxedReward {
    part(rows, |row| &row.0)
}

fn second(rows: &[(Score, Score, usize)]) -> BoxedReward {
    part(rows, |row| &row.1)
}

fn run(mut reward: impl RewardFn, rollouts: &[Rollout]) -> Vec<Score> {
    score_rollouts(&mut reward, rollouts).unwrap().scores
}

fn sum(weights: [f64; 2], parts: [BoxedReward; 2], missing: MissingPart) -> WeightedSum {
    let parts = weights.into_iter().zip(parts);
    WeightedSum::new("sum", parts.map(|(weight, reward)| WeightedPart { weight, reward }).collect(), missing)
}

fn values(scores: &[Score]) -> Vec<Option<f64>> {
    scores.iter().map(Score::value).collect()
}

fn close(left: &[Score], right: &[Score]) -> bool {
    left.len() == right.len()
        && values(left).iter().zip(values(right)).all(|pair| match pair {
            (Some(left), Some(right)) => (left - right).abs() < 1e-9,
            (None, None) => true,
            _ => false,
        })
}

/// Every composition of the two columns.
fn compositions(rows: &[(Score, Score, usize)]) -> Vec<BoxedReward> {
    let (one, two) = (|| first(rows), || second(rows));
    vec![
        Box::new(sum([2.0, -0.5], [one(), two()], MissingPart::Unscored)),
        Box::new(Product::new(vec![one(), two()])),
        Box::new(Minimum::new(vec![one(), two()])),
        Box::new(Clipped::new(one(), -1.0, 1.0)),
        Box::new(Affine::new(one(), -2.0, 1.0)),
        Box::new(Normalized::new(one())),
        Box::new(LengthDebiased::running(one(), LengthUnit::Characters)),
        Box::new(Gate::new(one(), 0.0, two(), Otherwise::Value(-1.0))),
    ]
}

proptest! {
    #[test]
    fn sums_are_linear(rows in rows(), a in -3f64..3.0, b in -3f64..3.0, scale in -2f64..2.0) {
        let batch = rollouts(&rows);
        let whole = run(sum([a * scale, b * scale], [first(&rows), second(&rows)], MissingPart::Unscored), &batch);
        let swapped = sum([b, a], [second(&rows), first(&rows)], MissingPart::Unscored);
        let scaled = run(Affine::new(Box::new(swapped), scale, 0.0), &batch);
        prop_assert!(close(&whole, &scaled), "{:?} {:?}", whole, scaled);
    }

    #[test]
    fn products_and_minima_do_not_depend_on_the_order_of_parts(rows in rows()) {
        let batch = rollouts(&rows);
        let parts = || vec![first(&rows), second(&rows)];
        let reversed = || vec![second(&rows), first(&rows)];
        prop_assert!(close(&run(Product::new(parts()), &batch), &run(Product::new(reversed()), &batch)));
        let minimum = run(Minimum::new(parts()), &batch);
        prop_assert!(close(&minimum, &run(Minimum::new(reversed()), &batch)));
        for (least, row) in minimum.iter().zip(&rows) {
            if let (Some(least), Some(a), Some(b)) = (least.value(), row.0.value(), row.1.value()) {
                prop_assert!(least <= a && least <= b && (least - a.min(b)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_unscored_stay_unscored(rows in rows()) {
        let batch = rollouts(&rows);
        for (place, composition) in compositions(&rows).into_iter().enumerate() {
            let name = composition.name().to_string();
            let needs_both = place < 3;
            for (score, row) in run(composition, &batch).iter().zip(&rows) {
                let opened = name == "gate" && row.0.value().is_some_and(|value| value >= 0.0);
                let expected = row.0.is_unscored() || (row.1.is_unscored() && (needs_both || opened));
                prop_assert_eq!(score.is_unscored(), expected, "{} {:?} {:?}", &name, row, score);
            }
        }
    }

    #[test]
    fn the_order_of_rollouts_does_not_matter(rows in rows()) {
        let batch = rollouts(&rows);
        let backwards: Vec<Rollout> = batch.iter().rev().cloned().collect();
        for (forward, backward) in compositions(&rows).into_iter().zip(compositions(&rows)) {
            let mut reversed = run(backward, &backwards);
            reversed.reverse();
            prop_assert!(close(&run(forward, &batch), &reversed));
        }
    }

    #[test]
    fn normalising_and_clipping_keep_the_order(rows in rows()) {
        let batch = rollouts(&rows);
        let plain = values(&run(first(&rows), &batch));
        for changed in [
            run(Normalized::new(first(&rows)), &batch),
            run(Clipped::new(first(&rows), -3.0, 5.0), &batch),
            run(Affine::new(first(&rows), 0.5, 7.0), &batch),
        ] {
            let changed = values(&changed);
            for (i, j) in (0..rows.len()).flat_map(|i| (0..rows.len()).map(move |j| (i, j))) {
                if let (Some(a), Some(b), Some(x), Some(y)) = (plain[i], plain[j], changed[i], changed[j]) {
                    prop_assert!(a > b || x <= y + 1e-12);
                }
            }
        }
    }

    #[test]
    fn residuals_have_nothing_to_do_with_length(rows in rows()) {
        let batch = rollouts(&rows);
        let residuals = values(&run(LengthDebiased::running(first(&rows), LengthUnit::Characters), &batch));
        let pairs = || residuals.iter().zip(&rows).filter_map(|(r, row)| Some(((*r)?, row.2 as f64)));
        let count = pairs().count() as f64;
        let mean_length = pairs().map(|pair| pair.1).sum::<f64>() / count;
        let product: f64 = pairs().map(|(residual, length)| residual * (length - mean_length)).sum();
        prop_assert!(count == 0.0 || product.abs() < 1e-6, "{}", product);
        let plain = values(&run(first(&rows), &batch));
        let mean = |values: &[Option<f64>]| values.iter().flatten().sum::<f64>() / count;
        prop_assert!(count == 0.0 || (mean(&plain) - mean(&residuals)).abs() < 1e-9);
    }

    #[test]
    fn a_saved_state_goes_on_where_it_was(rows in rows()) {
        let batch = rollouts(&rows);
        for (mut one, mut other) in compositions(&rows).into_iter().zip(compositions(&rows)) {
            score_rollouts(&mut one, &batch).unwrap();
            let text = one.state().to_string();
            other.restore(&serde_json::from_str(&text).unwrap()).unwrap();
            let (next, restored) = (score_rollouts(&mut one, &batch), score_rollouts(&mut other, &batch));
            prop_assert_eq!(next.unwrap(), restored.unwrap(), "to the last bit");
        }
    }
}

#[test]
fn a_part_can_be_left_out_as_in_trl() {
    let unscored = || Score::unscored("no answer");
    let rows = [
        (Score::Value(1.0), Score::Value(2.0), 0),
        (unscored(), Score::Value(2.0), 0),
        (unscored(), unscored(), 0),
    ];
    let batch = rollouts(&rows);
    let weights = [1.0, 10.0];
    let left_out = run(sum(weights, [first(&rows), second(&rows)], MissingPart::LeaveOut), &batch);
    assert_eq!(left_out, [Score::Value(21.0), Score::Value(20.0), Score::unscored("part: no answer")]);
    let carried = run(sum(weights, [first(&rows), second(&rows)], MissingPart::Unscored), &batch);
    assert_eq!(carried[1], Score::unscored("part: no answer"));
}

#[test]
fn a_bad_part_is_found_out_inside() {
    let batch = rollouts(&[(Score::Value(1.0), Score::Value(1.0), 3)]);
    let bad = |kind: usize| -> BoxedReward {
        Box::new(batch_fn("bad", move |_| match kind {
            0 => Ok(Vec::new()),
            1 => Ok(vec![Score::Value(f64::NAN)]),
            2 => panic!("oh"),
            _ => Err(RewardError::Failed { function: "bad".into(), reason: "no model".into() }),
        }))
    };
    let one = || -> BoxedReward { Box::new(each_fn("one", |_| 1.0)) };
    let errors = ["returned 0 scores for 1", "", "panicked: oh", "failed: no model"];
    for (kind, expected) in errors.into_iter().enumerate() {
        let mut sum = sum([1.0, 1.0], [bad(kind), one()], MissingPart::Unscored);
        let mut product = Product::new(vec![one(), bad(kind)]);
        for result in [score_rollouts(&mut sum, &batch), score_rollouts(&mut product, &batch)] {
            match result {
                Ok(scored) => assert_eq!(scored.scores, [Score::unscored("bad: bad gave NaN")]),
                Err(error) => {
                    assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_large_product_is_unscored_rather_than_infinite() {
    let large = || -> BoxedReward { Box::new(each_fn("large", |_| 1e300)) };
    let batch = [Rollout::new("p", "c")];
    assert_eq!(run(Product::new(vec![large(), large()]), &batch), [Score::unscored("the score is inf")]);
    assert!(run(Product::new(Vec::new()), &batch)[0].is_unscored());
}

#[test]
fn states_of_something_else_are_refused() {
    let rows = [(Score::Value(1.0), Score::Value(1.0), 0)];
    let normalized = || -> BoxedReward { Box::new(Normalized::new(first(&rows))) };
    let mut one = Product::new(vec![normalized()]);
    let two = Product::new(vec![normalized(), normalized()]);
    let error = one.restore(&two.state()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot restore the state of reward `product`: it was saved with 2 parts, there are 1"
    );
    assert!(one.restore(&serde_json::json!({"moments": 3})).is_err());
    assert!(Normalized::new(first(&rows)).restore(&serde_json::json!({"moments": {"count": "x"}})).is_err());
    assert!(LengthDebiased::running(first(&rows), LengthUnit::Words).restore(&Value::Null).is_err());
}

#[test]
fn a_fitted_regression_stays_as_it_is() {
    let mut regression = LengthRegression::default();
    for (length, reward) in [(0.0, 0.0), (10.0, 5.0)] {
        regression.push(length, reward);
    }
    let reward: BoxedReward = Box::new(each_fn("ten", |_| 10.0));
    let mut debiased = LengthDebiased::fitted(reward, LengthUnit::Characters, regression);
    let scores = debiased.score(&[Rollout::new("p", "x".repeat(15)), Rollout::new("p", "")]).unwrap();
    assert_eq!(scores, [Score::Value(5.0), Score::Value(12.5)]);
    assert_eq!(*debiased.regression(), regression);
}
