//! A reward made of parts: two that a run file describes and one that is a closure; what it chooses among samples, how it
//! judges a pair, and whether it goes by something that it should not.
//!
//! ```text
//! cargo run --release --example composed_reward
//! ```

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;

use align_kit::{
    model::number::Positive,
    reward::{
        best_of_n::best_of_each_group,
        compose::{MissingPart, WeightedPart, WeightedSum},
        function::{each_fn, score_rollouts},
        guard::{Feature, RewardAudit},
        judge::{BothOrders, Comparison, RewardJudge, judge_pairs},
        rollout::Rollout,
        rules::LengthUnit,
        score::Score,
        spec::{WeightedSpec, build_sum},
    },
};
use serde::Deserialize;

/// What a run file would say.
const RUN_FILE: &str = r#"
[[reward]]
kind = "numeric"
truth = { column = "answer" }
answer = { extract = "any" }

[[reward]]
kind = "gate"
weight = 0.2
condition = { kind = "numeric" }
reward = { kind = "regex", pattern = 'answer is \S+$' }
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunFile {
    reward: Vec<WeightedSpec>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut reward = composed()?;
    let rollouts = samples();
    for part in reward.parts(&rollouts)? {
        println!(
            "{:>5.2} x {:<12} {:?}",
            part.weight,
            part.name,
            part.scores.iter().map(Score::value).collect::<Vec<_>>()
        );
    }
    for winner in best_of_each_group(&mut reward, &rollouts)? {
        let text = winner.index.map_or("none can be scored", |index| &rollouts[index].completion);
        println!("best of group {}: {text}", winner.group);
    }

    let mut judge = BothOrders::new(RewardJudge::new(Box::new(composed()?), Positive::new(0.5)));
    let pair = Comparison { a: rollouts[0].clone(), b: rollouts[1].clone() };
    println!("the first is better than the second: {:?}", judge_pairs(&mut judge, &[pair])?[0]);

    let features = vec![Feature::Length(LengthUnit::Words), Feature::Flattery];
    let scores = score_rollouts(&mut reward, &rollouts)?.scores;
    for report in (RewardAudit { features, ..RewardAudit::default() }).run(&rollouts, &scores) {
        let found = report.pearson.map(|found| (found.coefficient, found.interval.low, found.interval.high));
        println!("{:?}: correlation {found:?}, a finding: {}", report.feature, report.is_finding);
    }
    Ok(())
}

/// The parts of the run file as one, and a penalty for flattery.
fn composed() -> Result<WeightedSum, Box<dyn Error>> {
    let file: RunFile = toml::from_str(RUN_FILE)?;
    let described = build_sum("described", &file.reward, MissingPart::Unscored)?;
    let flattery = each_fn("flattery", |rollout: &Rollout| {
        Feature::Flattery.count(rollout).map(|count| 0.0 - count as f64)
    });
    let parts = vec![WeightedPart::new(1.0, described), WeightedPart::new(0.5, flattery)];
    Ok(WeightedSum::new("reward", parts, MissingPart::Unscored))
}

/// Four samples for each of two questions, one of which has no known answer.
fn samples() -> Vec<Rollout> {
    let texts = [
        "Six sevens: the answer is 42",
        "Great question! You are absolutely right to ask. The answer is 42",
        "42",
        "It should be 41.",
    ];
    let known = texts.map(|text| Rollout::new("What is 6 * 7?", text).with_column("answer", "42"));
    let unknown = texts.map(|text| Rollout::new("What is the question?", text).in_group(1));
    known.into_iter().chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_right_answer_wins_and_no_question_is_scored_without_its_answer() {
        let mut reward = composed().unwrap();
        let scores = score_rollouts(&mut reward, &samples()).unwrap().scores;
        let values: Vec<Option<f64>> = scores.iter().map(Score::value).collect();
        for (found, expected) in values[..4].iter().zip([1.2, 0.2, 1.0, 0.0]) {
            assert!((found.unwrap() - expected).abs() < 1e-12, "{values:?}");
        }
        assert_eq!(values[4..], [None; 4]);
        let winners = best_of_each_group(&mut reward, &samples()).unwrap();
        assert_eq!((winners[0].index, winners[1].index), (Some(0), None));
    }
}
