//! What an update measured, read from the device at once.

use align_model::{
    logprob::{TokenScores, plain},
    train::Update,
};
use burn::tensor::Tensor;

use super::micro_batch::MicroBatches;
use crate::{
    experience::{Experience, split},
    loss::Accumulation,
    objective::PolicyShare,
};

/// Measurements on the device.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Shares of the update's loss. `[1]` each
    losses: Vec<Tensor<1>>,
    /// What the tokens of each pass have, one column after another. `[columns·targets]`
    passes: Vec<Tensor<1>>,
    targets: Vec<usize>,
    /// As `losses`, without the bonus for entropy.
    policy_losses: Vec<Tensor<1>>,
    has_kl: bool,
    has_gammas: bool,
}

/// What an update measured.
#[derive(Debug, Clone, Default)]
pub(super) struct UpdateMetrics {
    pub(super) loss: f64,
    /// The loss without the bonus for entropy.
    policy_loss: f64,
    /// Mean entropy of the policy at the tokens, in nats.
    pub(super) entropy: f64,
    /// Mean entropy at the tokens that are kept.
    pub(super) kept_entropy: f64,
    /// Mean estimate of the divergence from the reference, where there is one.
    pub(super) kl: Option<f64>,
    /// Mean of VESPO's weights over sequences, where there are any.
    gamma: Option<f64>,
    /// Coefficients that change during a run.
    pub(super) coefficients: Vec<(&'static str, f64)>,
    clipped_low: Clipped,
    clipped_high: Clipped,
    ratio: Spread,
    /// Absolute difference of log-probabilities between sampler and trainer.
    sampler_gap: Spread,
    /// Ratio of probabilities between the policy before the update and the sampler.
    sampler_ratio: Spread,
    /// Log-probabilities of the actions, trajectory after trajectory.
    log_probs: Vec<Vec<f32>>,
    pub(super) update: Option<Update>,
}

/// Lowest, mean and highest of some numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Spread {
    min: f64,
    mean: f64,
    max: f64,
}

/// How much was clipped.
#[derive(Debug, Clone, Copy, Default)]
struct Clipped {
    /// Of all tokens, or of all sequences where those are clipped.
    share: f64,
    /// Of the tokens of the sequence that is clipped least.
    least: f64,
    /// Of the tokens of the sequence that is clipped most.
    most: f64,
}

impl Measured {
    /// Keeps what a pass says.
    pub(super) fn add(&mut self, scores: &TokenScores, share: &PolicyShare) {
        self.losses.push(plain(share.loss.clone()));
        let columns = [
            &scores.log_probs.values,
            &scores.entropies,
            &share.ratios,
            &share.clipped_low,
            &share.clipped_high,
        ];
        let columns = columns.into_iter().chain(share.kl.as_ref()).chain(share.gammas.as_ref());
        self.targets.push(scores.entropies.dims()[0]);
        self.passes.push(Tensor::cat(columns.map(|column| plain(column.clone())).collect(), 0));
        self.policy_losses.push(plain(share.policy_loss.clone()));
        self.has_kl = share.kl.is_some();
        self.has_gammas = share.gammas.is_some();
    }

    /// Reads everything from the device, of passes over `experience`. `kept` has 1 for tokens that are learnt from.
    pub(super) fn read(
        self,
        experience: &[Experience],
        passes: &MicroBatches<'_>,
        clips_sequences: bool,
        kept: Option<&[Vec<f32>]>,
    ) -> UpdateMetrics {
        let losses = self.losses.len();
        let all = self.losses.into_iter().chain(self.policy_losses).chain(self.passes).collect();
        let values: Vec<f32> = Tensor::cat(all, 0).into_data().iter::<f32>().collect();
        let (of_losses, rest) = values.split_at(losses);
        let (of_policy, mut rest) = rest.split_at(losses);
        let width = 5 + usize::from(self.has_kl) + usize::from(self.has_gammas);
        let has = (self.has_kl, self.has_gammas);
        let (mut of_scopes, mut log_probs, mut entropies) = (Vec::new(), Vec::new(), Vec::new());
        let scopes = passes.all.chunks(passes.scope()).zip(self.targets.chunks(passes.scope()));
        for (scope, targets) in scopes {
            let mut columns = vec![Vec::new(); width];
            for &targets in targets {
                let (of_pass, others) = rest.split_at(width * targets);
                for (column, of_column) in columns.iter_mut().zip(of_pass.chunks(targets)) {
                    column.extend_from_slice(of_column);
                }
                rest = others;
            }
            log_probs.extend_from_slice(&columns[0]);
            entropies.extend_from_slice(&columns[1]);
            let experience: Vec<&Experience> =
                scope.iter().flat_map(|pass| pass.part.experience.iter().copied()).collect();
            of_scopes.push(UpdateMetrics::of(columns, &experience, has, clips_sequences));
        }
        let mean_of = match passes.accumulation {
            Accumulation::Exact | Accumulation::MicroBatchMean => 1,
            // TRL's share of a pass is one of the whole update, and what it reports is the mean of shares.
            Accumulation::RolloutMean => passes.number,
        };
        UpdateMetrics {
            loss: sum(of_losses),
            policy_loss: sum(of_policy) / mean_of as f64,
            kept_entropy: kept_mean(&entropies, kept),
            log_probs: split(experience, log_probs),
            ..UpdateMetrics::over(&of_scopes).unwrap_or_default()
        }
    }
}

/// The mean of some numbers of tokens, pass after pass, over those that are kept.
fn kept_mean(values: &[f32], kept: Option<&[Vec<f32>]>) -> f64 {
    let Some(kept) = kept else { return mean(values) };
    let (mut total, mut count) = (0.0, 0.0_f64);
    for (&value, &mark) in values.iter().zip(kept.iter().flatten()) {
        total += f64::from(value * mark);
        count += f64::from(mark);
    }
    total / count.max(1.0)
}

/// Of every action: the absolute difference between its log-probability before the update and when it was sampled, and
/// the ratio of the two probabilities.
fn against_sampler(experience: &[&Experience], log_probs: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (mut differences, mut rest) = (Vec::with_capacity(log_probs.len()), log_probs);
    for one in experience {
        let (now, others) = rest.split_at(one.targets());
        rest = others;
        let before = one.old_log_probs.as_deref().unwrap_or(now);
        let pairs = before.iter().zip(&one.trajectory.sampling_log_probs);
        differences.extend(pairs.map(|(&before, &sampled)| f64::from(before) - f64::from(sampled)));
    }
    let ratios = differences.iter().map(|difference| difference.exp()).collect();
    (differences.into_iter().map(f64::abs).collect(), ratios)
}

/// Means over sequences of so many tokens each.
fn means(values: &[f32], counts: &[usize]) -> Spread {
    let mut rest = values;
    let next = |&count: &usize| {
        let (of_one, others) = rest.split_at(count);
        rest = others;
        mean(of_one)
    };
    Spread::of(counts.iter().map(next).collect::<Vec<f64>>())
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum()
}

fn mean(values: &[f32]) -> f64 {
    sum(values) / values.len().max(1) as f64
}

impl Clipped {
    fn new(flags: &[f32], counts: &[usize], clips_sequences: bool) -> Self {
        let shares = means(flags, counts);
        Self {
            share: if clips_sequences { shares.mean } else { mean(flags) },
            least: shares.min,
            most: shares.max,
        }
    }

    fn over<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let count = all.clone().count().max(1) as f64;
        let mean = |value: fn(&Self) -> f64| all.clone().map(value).sum::<f64>() / count;
        Self { share: mean(|one| one.share), least: mean(|one| one.least), most: mean(|one| one.most) }
    }
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut min, mut max, mut sum, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0);
        for value in values {
            (min, max, sum, count) = (min.min(value), max.max(value), sum + value, count + 1.0);
        }
        if count > 0.0 { Self { min, mean: sum / count, max } } else { Self::default() }
    }

    /// Of several spreads: the outermost ends and the mean of means.
    fn over<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let count = all.clone().count().max(1) as f64;
        Self {
            min: all.clone().map(|one| one.min).fold(f64::INFINITY, f64::min),
            mean: all.clone().map(|one| one.mean).sum::<f64>() / count,
            max: all.map(|one| one.max).fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

impl UpdateMetrics {
    /// Of columns of tokens; loss and log-probabilities are added later.
    fn of(
        columns: Vec<Vec<f32>>,
        experience: &[&Experience],
        (has_kl, has_gammas): (bool, bool),
        clips_sequences: bool,
    ) -> Self {
        let mut columns = columns.into_iter();
        let mut next = || columns.next().unwrap_or_default();
        let [log_probs, entropies, ratios, low, high] = std::array::from_fn(|_| next());
        let (kl, gammas) = (has_kl.then(&mut next), has_gammas.then(&mut next));
        let (gaps, between) = against_sampler(experience, &log_probs);
        let counts: Vec<usize> = experience.iter().map(|one| one.targets()).collect();
        let clipped = |flags: &[f32]| Clipped::new(flags, &counts, clips_sequences);
        Self {
            entropy: mean(&entropies),
            kl: kl.map(|kl| mean(&kl)),
            gamma: gammas.map(|gammas| means(&gammas, &counts).mean),
            clipped_low: clipped(&low),
            clipped_high: clipped(&high),
            ratio: Spread::of(ratios.into_iter().map(f64::from)),
            sampler_gap: Spread::of(gaps),
            sampler_ratio: Spread::of(between),
            ..Self::default()
        }
    }

    /// Writes down what the policy said before the update, for later updates to be measured against.
    pub(super) fn remember(&self, experience: &mut [Experience]) {
        for (one, log_probs) in experience.iter_mut().zip(&self.log_probs) {
            if one.old_log_probs.is_none() && one.targets() > 0 {
                one.old_log_probs = Some(log_probs.clone());
            }
        }
    }

    /// What the updates of a step, or passes of an update, measured together: means; the rate is that of the last.
    pub(super) fn over(all: &[Self]) -> Option<Self> {
        let count = all.len() as f64;
        let last = all.last()?;
        let over = |value: fn(&Self) -> f64| all.iter().map(value).sum::<f64>() / count;
        let norms: Vec<f64> = all.iter().filter_map(|one| Some(one.update?.grad_norm)).collect();
        let grad_norm = norms.iter().sum::<f64>() / norms.len().max(1) as f64;
        Some(Self {
            loss: over(|one| one.loss),
            policy_loss: over(|one| one.policy_loss),
            entropy: over(|one| one.entropy),
            kept_entropy: over(|one| one.kept_entropy),
            kl: last.kl.map(|_| over(|one| one.kl.unwrap_or_default())),
            gamma: last.gamma.map(|_| over(|one| one.gamma.unwrap_or_default())),
            coefficients: last.coefficients.clone(),
            clipped_low: Clipped::over(all.iter().map(|one| &one.clipped_low)),
            clipped_high: Clipped::over(all.iter().map(|one| &one.clipped_high)),
            ratio: Spread::over(all.iter().map(|one| &one.ratio)),
            sampler_gap: Spread::over(all.iter().map(|one| &one.sampler_gap)),
            sampler_ratio: Spread::over(all.iter().map(|one| &one.sampler_ratio)),
            log_probs: Vec::new(),
            update: last.update.map(|update| Update { grad_norm, ..update }),
        })
    }

    /// Under TRL's names.
    pub(super) fn named(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![("loss", self.loss), ("policy_loss", self.policy_loss)];
        if let Some(Update { learning_rate, grad_norm }) = self.update {
            metrics.extend([("grad_norm", grad_norm), ("learning_rate", learning_rate)]);
        }
        metrics.push(("entropy", self.entropy));
        metrics.extend(self.kl.map(|kl| ("kl", kl)));
        metrics.extend(self.gamma.map(|gamma| ("vespo/phi_seq_mean", gamma)));
        metrics.extend(&self.coefficients);
        metrics.extend([
            ("clip_ratio/low_mean", self.clipped_low.share),
            ("clip_ratio/low_min", self.clipped_low.least),
            ("clip_ratio/high_mean", self.clipped_high.share),
            ("clip_ratio/high_max", self.clipped_high.most),
            ("clip_ratio/region_mean", self.clipped_low.share + self.clipped_high.share),
            ("ratio/min", self.ratio.min),
            ("ratio/mean", self.ratio.mean),
            ("ratio/max", self.ratio.max),
            ("sampling/sampling_logp_difference/mean", self.sampler_gap.mean),
            ("sampling/sampling_logp_difference/max", self.sampler_gap.max),
            ("sampling/importance_sampling_ratio/min", self.sampler_ratio.min),
            ("sampling/importance_sampling_ratio/mean", self.sampler_ratio.mean),
            ("sampling/importance_sampling_ratio/max", self.sampler_ratio.max),
        ]);
        metrics
    }
}
