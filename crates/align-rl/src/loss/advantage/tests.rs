use proptest::prelude::*;

use super::*;

/// Single-function scores in groups, with so many tokens each.
struct Case {
    rewards: Vec<Vec<Option<f64>>>,
    groups: Vec<u64>,
    counts: Vec<usize>,
}

impl Case {
    fn new(scores: &[Option<f64>], groups: &[u64], counts: &[usize]) -> Self {
        let rewards = scores.iter().map(|&score| vec![score]).collect();
        Self { rewards, groups: groups.to_vec(), counts: counts.to_vec() }
    }

    fn scored(&self) -> ScoredGroups<'_> {
        ScoredGroups {
            rewards: &self.rewards,
            weights: &[1.0],
            groups: &self.groups,
            counts: &self.counts,
            token_rewards: None,
            greedy_scores: None,
        }
    }

    fn sequences(&self, estimator: AdvantageEstimator) -> Vec<f64> {
        estimator.advantages(&self.scored()).sequences
    }
}

fn every_estimator() -> Vec<AdvantageEstimator> {
    let (discount, whitening) = (one(), Whitening::Corrected);
    let normalize_epsilon = Some(epsilon());
    vec![
        AdvantageEstimator::group(AdvantageScale::Group),
        AdvantageEstimator::group(AdvantageScale::Batch),
        AdvantageEstimator::group(AdvantageScale::None),
        AdvantageEstimator::leave_one_out(),
        AdvantageEstimator::LeaveOneOut { score_range: None, normalize_epsilon },
        AdvantageEstimator::ReinforcePlusPlus { discount, whitening },
        AdvantageEstimator::ReinforcePlusPlusBaseline { whitening },
        AdvantageEstimator::ReMax { discount },
        AdvantageEstimator::Opo {},
        AdvantageEstimator::Gdpo { epsilon: epsilon(), population: Population::Sequences },
        AdvantageEstimator::Gdpo { epsilon: epsilon(), population: Population::Tokens },
        AdvantageEstimator::PassAtK { scale: AdvantageScale::Group, epsilon: epsilon() },
    ]
}

fn close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in actual.iter().zip(expected) {
        assert!((a - b).abs() < 1e-9, "{actual:?} for {expected:?}");
    }
}

#[test]
fn each_estimator_has_its_baseline() {
    // Two groups, the second apart from itself: [1, 2, 6] and [4, 4].
    let case = Case::new(
        &[Some(1.0), Some(4.0), Some(2.0), Some(6.0), Some(4.0)],
        &[7, 3, 7, 7, 3],
        &[1, 2, 3, 4, 5],
    );
    close(&case.sequences(AdvantageEstimator::group(AdvantageScale::None)), &[-2.0, 0.0, -1.0, 3.0, 0.0]);
    close(&case.sequences(AdvantageEstimator::leave_one_out()), &[-3.0, 0.0, -1.5, 4.5, 0.0]);
    let deviation = 7.0_f64.sqrt() + 1e-4;
    let group = [-2.0 / deviation, 0.0, -1.0 / deviation, 3.0 / deviation, 0.0];
    close(&case.sequences(AdvantageEstimator::default()), &group);
    // (1·1 + 3·2 + 4·6)/8 = 31/8
    close(&case.sequences(AdvantageEstimator::Opo {}), &[-2.875, 0.0, -1.875, 2.125, 0.0]);
    let best = AdvantageEstimator::PassAtK { scale: AdvantageScale::None, epsilon: epsilon() };
    close(&case.sequences(best), &[0.0, 0.0, 0.0, 4.0, 0.0]);
    let whitening = Whitening::Centered;
    let baseline = AdvantageEstimator::ReinforcePlusPlusBaseline { whitening };
    // Over tokens: (−2·1 + 0·2 − 1·3 + 3·4 + 0·5)/15 = 7/15
    let mean = 7.0 / 15.0;
    close(&case.sequences(baseline), &[-2.0 - mean, -mean, -1.0 - mean, 3.0 - mean, -mean]);
}

#[test]
fn scores_are_kept_in_their_range_before_penalties() {
    let case = Case::new(&[Some(9.0), Some(-9.0)], &[0, 0], &[1, 2]);
    let penalties = [-0.5, -0.25, -0.25];
    let scored = ScoredGroups { token_rewards: Some(&penalties), ..case.scored() };
    let score_range = Some(ScoreRange { low: -1.0, high: 2.0 });
    let estimator = AdvantageEstimator::LeaveOneOut { score_range, normalize_epsilon: None };
    let advantages = estimator.advantages(&scored);
    close(&advantages.sequences, &[3.0, -3.0]);
    close(&advantages.tokens, &[3.0, -3.0, -3.0]);
    assert_eq!(advantages.scores, [Some(9.0), Some(-9.0)]);
}

#[test]
fn returns_to_go_end_with_the_score() {
    let case = Case::new(&[Some(1.0), None], &[0, 0], &[3, 2]);
    let token_rewards = [0.5, 0.0, -1.0, 5.0, 5.0];
    let greedy_scores = [0.25, 0.0];
    let scored = ScoredGroups {
        token_rewards: Some(&token_rewards),
        greedy_scores: Some(&greedy_scores),
        ..case.scored()
    };
    let advantages = AdvantageEstimator::ReMax { discount: UnitInterval::new(0.5) }.advantages(&scored);
    close(&advantages.tokens, &[0.25, -0.25, -0.25, 0.0, 0.0]);
    close(&advantages.sequences, &[-0.25 / 3.0, 0.0]);
    let whitening = Whitening::Centered;
    let estimator = AdvantageEstimator::ReinforcePlusPlus { discount: one(), whitening };
    // Returns [0.5, 0, 0], less their mean; what has no score has no part in it.
    let third = 1.0 / 6.0;
    close(&estimator.advantages(&scored).tokens, &[0.5 - third, -third, -third, 0.0, 0.0]);
}

#[test]
fn one_functions_scale_does_not_drown_anothers() {
    let rewards = vec![
        vec![Some(0.0), Some(100.0)],
        vec![Some(1.0), Some(200.0)],
        vec![Some(1.0), None],
        vec![None, None],
    ];
    let scored = ScoredGroups {
        rewards: &rewards,
        weights: &[1.0, 1.0],
        groups: &[0, 0, 0, 0],
        counts: &[1, 1, 1, 1],
        token_rewards: None,
        greedy_scores: None,
    };
    let estimator =
        AdvantageEstimator::Gdpo { epsilon: NonNegative::new(0.0), population: Population::Sequences };
    // z of the first function: [−2, 1, 1]/√3; of the second: [−1, 1]/√2.
    let (a, b) = (1.0 / 3.0_f64.sqrt(), 1.0 / 2.0_f64.sqrt());
    let summed = [-2.0 * a - b, a + b, a];
    let mean = summed.iter().sum::<f64>() / 3.0;
    let deviation = (summed.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let expected: Vec<f64> = summed.iter().map(|s| (s - mean) / deviation).chain([0.0]).collect();
    close(&estimator.advantages(&scored).sequences, &expected);
}

#[test]
fn what_cannot_be_compared_has_no_advantage() {
    let lonely = Case::new(&[Some(3.0), Some(0.5), None], &[0, 1, 1], &[2, 2, 2]);
    let flat = Case::new(&[Some(0.1); 4], &[0; 4], &[1, 2, 3, 4]);
    let nothing = Case::new(&[None, Some(f64::NAN), Some(f64::INFINITY)], &[0; 3], &[1, 1, 0]);
    for estimator in every_estimator().into_iter().filter(AdvantageEstimator::compares_groups) {
        if !matches!(estimator, AdvantageEstimator::Gdpo { population: Population::Tokens, .. }) {
            assert_eq!(lonely.sequences(estimator), [0.0; 3], "{estimator:?}");
        }
        assert_eq!(flat.sequences(estimator), [0.0; 4], "{estimator:?}");
        assert_eq!(nothing.sequences(estimator), [0.0; 3], "{estimator:?}");
    }
}

#[test]
fn a_configuration_names_an_estimator() {
    let parsed: AdvantageEstimator = toml::from_str("kind = \"leave_one_out\"").unwrap();
    assert_eq!(parsed, AdvantageEstimator::leave_one_out());
    let parsed: AdvantageEstimator =
        toml::from_str("kind = \"group\"\nscale = \"none\"\nepsilon = 1e-6").unwrap();
    let epsilon = NonNegative::new(1e-6);
    assert_eq!(parsed, AdvantageEstimator::Group { scale: AdvantageScale::None, epsilon });
    assert!(toml::from_str::<AdvantageEstimator>("kind = \"opo\"\nepsilon = 1e-6").is_err());
    for estimator in every_estimator() {
        let text = toml::to_string(&estimator).unwrap();
        assert_eq!(toml::from_str::<AdvantageEstimator>(&text).unwrap(), estimator, "{text}");
    }
}

prop_compose! {
    fn cases()(rows in prop::collection::vec(
        (prop::option::weighted(0.85, -5.0..5.0_f64), 0..4_u64, 1..6_usize), 1..24,
    )) -> Case {
        let (scores, rest): (Vec<_>, Vec<_>) = rows.into_iter().map(|(s, g, c)| (s, (g, c))).unzip();
        let (groups, counts): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
        Case::new(&scores, &groups, &counts)
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.rewards, self.groups, self.counts)
    }
}

proptest! {
    #[test]
    fn advantages_of_a_group_add_up_to_zero(case in cases()) {
        for scale in [AdvantageScale::Group, AdvantageScale::None] {
            let estimators = [AdvantageEstimator::group(scale), AdvantageEstimator::leave_one_out()];
            for estimator in estimators {
                let advantages = case.sequences(estimator);
                for group in 0..4 {
                    let own = advantages.iter().zip(&case.groups).filter(|(_, g)| **g == group);
                    prop_assert!(own.map(|(a, _)| a).sum::<f64>().abs() < 1e-8);
                }
            }
        }
    }

    #[test]
    fn advantages_are_finite_and_none_without_a_score(case in cases()) {
        let greedy = vec![0.5; case.rewards.len()];
        let scored = ScoredGroups { greedy_scores: Some(&greedy), ..case.scored() };
        for estimator in every_estimator() {
            let advantages = estimator.advantages(&scored);
            prop_assert_eq!(advantages.tokens.len(), case.counts.iter().sum::<usize>());
            prop_assert!(advantages.tokens.iter().all(|a| a.is_finite()));
            for (advantage, score) in advantages.sequences.iter().zip(&advantages.scores) {
                prop_assert!(score.is_some() || *advantage == 0.0);
            }
        }
    }

    #[test]
    fn the_order_of_responses_does_not_matter(case in cases()) {
        let reversed = Case {
            rewards: case.rewards.iter().rev().cloned().collect(),
            groups: case.groups.iter().rev().copied().collect(),
            counts: case.counts.iter().rev().copied().collect(),
        };
        for estimator in every_estimator().into_iter().filter(|it| !it.needs_greedy_scores()) {
            let back: Vec<f64> = reversed.sequences(estimator).into_iter().rev().collect();
            for (a, b) in case.sequences(estimator).into_iter().zip(back) {
                // The best of equals is the first.
                let is_tied = matches!(estimator, AdvantageEstimator::PassAtK { .. }) && (a == 0.0 || b == 0.0);
                prop_assert!((a - b).abs() < 1e-7 || is_tied, "{:?}: {} {}", estimator, a, b);
            }
        }
    }
}
