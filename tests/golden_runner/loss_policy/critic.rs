//! `loss_ppo`: rewards with their divergence, advantages and returns of a critic, both losses, whitening.

use align_model::number::{NonNegative, Positive, UnitInterval};
use align_rl::{
    KlEstimator, PolicyObjective, PolicyTokens,
    loss::{
        Moments, ScorePlacement, StepTotals, Whitening, clipped_value_loss, gae, place_score,
        value_is_clipped, whiten, whiten_around_mean,
    },
};
use serde_json::Value;

use super::{Check, Covered, GRADIENT, GoldenFile, HOST, LOSS, METRIC, flat, host, mean, number, tensor};

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let inputs = &file.json["inputs"];
    let rollouts = file.json["rollout"].as_array().unwrap();
    for result in rollouts {
        check.case();
        check_rollout(check, inputs, result);
    }
    for result in file.json["loss"].as_array().unwrap() {
        check.case();
        let options = &rollouts[result["uses_rollout"].as_u64().unwrap() as usize]["options"];
        check_loss(check, inputs, &Rollout::new(inputs, options), result);
    }
    check.case();
    check_whitening(check, &file.json["whiten"]);
    Ok(())
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(flat).collect()
}

/// Rows of different lengths: actions alone, or with the position after them where there is room for it.
struct Rollout {
    width: usize,
    /// Tokens of each row that are actions.
    actions: Vec<usize>,
    /// The same, and the position after them.
    positions: Vec<usize>,
    /// `[actions]` of each row.
    divergences: Vec<Vec<f64>>,
    penalties: Vec<Vec<f64>>,
    /// `[positions]` of each row.
    rewards: Vec<Vec<f64>>,
    advantages: Vec<Vec<f64>>,
    returns: Vec<Vec<f64>>,
}

/// Numbers of rows of these lengths.
fn cut(flat: &[f64], lengths: &[usize]) -> Vec<Vec<f64>> {
    let mut rest = flat;
    let cut = lengths.iter().map(|&length| {
        let (own, others) = rest.split_at(length);
        rest = others;
        own.to_vec()
    });
    cut.collect()
}

fn prefixes(rows: &[Vec<f64>], lengths: &[usize]) -> Vec<Vec<f64>> {
    rows.iter().zip(lengths).map(|(row, &length)| row[..length].to_vec()).collect()
}

impl Rollout {
    fn new(inputs: &Value, options: &Value) -> Self {
        let unit = |key: &str| UnitInterval::try_from(number(&options[key])).unwrap();
        let log_probs = rows(&inputs["logprobs"]);
        let width = log_probs[0].len();
        let actions: Vec<usize> =
            flat(&inputs["sequence_lengths"]).into_iter().map(|last| last as usize + 1).collect();
        let positions: Vec<usize> = actions.iter().map(|&count| (count + 1).min(width)).collect();
        let estimator = match options["kl_estimator"].as_str().unwrap() {
            "k1" => KlEstimator::K1,
            "k3" => KlEstimator::K3,
            other => panic!("no estimator {other}"),
        };
        let references = rows(&inputs["ref_logprobs"]);
        let estimates = |(own, reference): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            own.iter().zip(reference).map(|(own, reference)| estimator.estimate(*own, *reference)).collect()
        };
        let all: Vec<Vec<f64>> = log_probs.iter().zip(&references).map(estimates).collect();
        let divergences = prefixes(&all, &actions);
        let coefficient = number(&options["kl_coef"]);
        let penalties: Vec<Vec<f64>> =
            divergences.iter().map(|row| row.iter().map(|kl| -coefficient * kl).collect()).collect();
        let scores = flat(&inputs["scores"]);
        let mut rewards: Vec<Vec<f64>> = Vec::new();
        for ((row, score), has_room) in penalties.iter().zip(scores).zip(actions.iter().map(|&a| a < width)) {
            let placement =
                if has_room { ScorePlacement::AfterLastAction } else { ScorePlacement::LastAction };
            rewards.push(place_score(row, score, placement));
        }
        if options["whiten_rewards"].as_bool().unwrap() {
            rewards = cut(&whiten_around_mean(&rewards.concat(), Whitening::Corrected), &positions);
        }
        let values = prefixes(&rows(&inputs["values"]), &positions);
        let raw: Vec<Vec<f64>> =
            rewards.iter().zip(&values).map(|(r, v)| gae(r, v, unit("gamma"), unit("lam"))).collect();
        let returns =
            raw.iter().zip(&values).map(|(a, v)| a.iter().zip(v).map(|(a, v)| a + v).collect()).collect();
        let white = whiten(&prefixes(&raw, &actions).concat(), Whitening::Corrected);
        let advantages = cut(&white, &actions);
        Self { width, actions, positions, divergences, penalties, rewards, advantages, returns }
    }

    /// Rows filled up with zeros.
    fn padded(&self, rows: &[Vec<f64>]) -> Vec<f64> {
        let fill = |row: &Vec<f64>| [row.clone(), vec![0.0; self.width - row.len()]].concat();
        rows.iter().flat_map(fill).collect()
    }
}

fn check_rollout(check: &mut Check, inputs: &Value, result: &Value) {
    let options = &result["options"];
    let rollout = Rollout::new(inputs, options);
    for (name, actual) in [
        ("kl", &rollout.divergences),
        ("non_score_reward", &rollout.penalties),
        ("rewards", &rollout.rewards),
        ("advantages", &rollout.advantages),
        ("returns", &rollout.returns),
    ] {
        let expected = flat(&result[format!("{name}_f64")]);
        check.close(&format!("{options} {name}"), &rollout.padded(actual), &expected, HOST);
    }
}

fn check_loss(check: &mut Check, inputs: &Value, rollout: &Rollout, result: &Value) {
    let device = super::super::device().autodiff();
    let options = &result["options"];
    let read =
        |key: &str, lengths: &[usize]| tensor(&prefixes(&rows(&inputs[key]), lengths).concat(), &device);
    let log_probs = read("new_logprobs", &rollout.actions).require_grad();
    let values = read("vpred", &rollout.positions).require_grad();
    let tokens = PolicyTokens {
        log_probs: log_probs.clone(),
        old_log_probs: read("logprobs", &rollout.actions),
        sampling_log_probs: None,
        reference_log_probs: None,
        divergences: None,
        entropies: log_probs.zeros_like(),
        advantages: tensor(&rollout.advantages.concat(), &device),
        is_kept: None,
        is_penalized: None,
        counts: rollout.actions.clone(),
    };
    let range = NonNegative::try_from(number(&options["cliprange"])).unwrap();
    let share = PolicyObjective::ppo(range).share(&tokens, StepTotals::of(&rollout.actions));
    let range = Positive::try_from(number(&options["cliprange_value"])).unwrap();
    let (old, returns) = (read("values", &rollout.positions), tensor(&rollout.returns.concat(), &device));
    let value_loss = clipped_value_loss(values.clone(), old.clone(), returns.clone(), Some(range)).mean();
    let loss = share.loss.clone() + value_loss.clone() * number(&options["vf_coef"]);
    let gradients = loss.clone().backward();
    for (name, actual) in [("loss", &loss), ("pg_loss", &share.loss), ("vf_loss", &value_loss)] {
        let actual = actual.clone().into_scalar::<f64>();
        check.close_scalar(
            &format!("{options} {name}"),
            actual,
            number(&result[format!("{name}_f64")]),
            LOSS,
        );
    }
    let clipped = host(&(share.clipped_low + share.clipped_high));
    check.close_scalar("pg_clipfrac", mean(&clipped), number(&result["pg_clipfrac"]), METRIC);
    let clipped = host(&value_is_clipped(values.clone(), old, returns, range));
    check.close_scalar("vf_clipfrac", mean(&clipped), number(&result["vf_clipfrac"]), METRIC);
    for (name, leaf, lengths) in
        [("grad_logprobs", &log_probs, &rollout.actions), ("grad_vpred", &values, &rollout.positions)]
    {
        let gradient = cut(&host(&leaf.grad(&gradients).unwrap()), lengths);
        let expected = flat(&result[format!("{name}_f64")]);
        check.close(&format!("{options} {name}"), &rollout.padded(&gradient), &expected, GRADIENT);
    }
}

fn check_whitening(check: &mut Check, expected: &Value) {
    let mask = flat(&expected["mask"]);
    let select = |key: &str| -> Vec<f64> {
        flat(&expected[key]).into_iter().zip(&mask).filter(|(_, m)| **m != 0.0).map(|(x, _)| x).collect()
    };
    let values = select("values");
    let moments = Moments::of(values.iter().copied());
    check.close_scalar("mean", moments.mean, number(&expected["mean"]), HOST);
    check.close_scalar("variance", moments.variance(), number(&expected["var"]), HOST);
    check.close("whitened", &whiten(&values, Whitening::Corrected), &select("whitened"), HOST);
    let around = whiten_around_mean(&values, Whitening::Corrected);
    check.close("whitened around the mean", &around, &select("whitened_no_shift"), HOST);
}
