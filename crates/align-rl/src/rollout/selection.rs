//! Which rollouts of a log are shown, and in which order.

use std::{cmp::Ordering, collections::BTreeMap, num::NonZeroUsize};

use super::RolloutRow;

/// Which rollouts are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RolloutSelection {
    /// Those of this step alone.
    pub step: Option<u64>,
    /// Which of each group.
    pub of_group: OfGroup,
    /// In which order.
    pub order: RolloutOrder,
    /// So many, at most.
    pub limit: Option<NonZeroUsize>,
}

/// Which rollouts of a group are shown. Those without a reward are neither best nor worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OfGroup {
    /// All.
    #[default]
    All,
    /// The one with the highest reward.
    Best,
    /// The one with the lowest reward.
    Worst,
    /// Both, the best first.
    BestAndWorst,
}

/// The order in which rollouts are shown. Those without a reward come last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RolloutOrder {
    /// That of the file.
    #[default]
    AsWritten,
    /// The highest reward first.
    HighestReward,
    /// The lowest reward first.
    LowestReward,
}

impl RolloutSelection {
    /// The rows that are shown, in their order.
    #[must_use]
    pub fn apply(&self, rows: impl IntoIterator<Item = RolloutRow>) -> Vec<RolloutRow> {
        let of_step = |row: &RolloutRow| self.step.is_none_or(|step| row.step == step);
        let mut rows: Vec<RolloutRow> = rows.into_iter().filter(of_step).collect();
        if self.of_group != OfGroup::All {
            rows = self.of_each_group(rows);
        }
        match self.order {
            RolloutOrder::AsWritten => {}
            RolloutOrder::HighestReward => rows.sort_by(|a, b| by_reward(b, a)),
            RolloutOrder::LowestReward => rows.sort_by(by_reward),
        }
        // A stable second sort, for a reversed order has them first.
        if self.order != RolloutOrder::AsWritten {
            rows.sort_by_key(|row| row.reward.is_none());
        }
        rows.truncate(self.limit.map_or(usize::MAX, NonZeroUsize::get));
        rows
    }

    fn of_each_group(&self, rows: Vec<RolloutRow>) -> Vec<RolloutRow> {
        let mut groups: BTreeMap<(u64, u64), Vec<RolloutRow>> = BTreeMap::new();
        for row in rows.into_iter().filter(|row| row.reward.is_some()) {
            groups.entry((row.step, row.group)).or_default().push(row);
        }
        let chosen = groups.into_values().flat_map(|mut group| {
            group.sort_by(|a, b| by_reward(b, a));
            let (last, count) = (group.len() - 1, group.len());
            let shown = match self.of_group {
                OfGroup::All => (0..count).collect(),
                OfGroup::Best => vec![0],
                OfGroup::Worst => vec![last],
                OfGroup::BestAndWorst if last == 0 => vec![0],
                OfGroup::BestAndWorst => vec![0, last],
            };
            group.into_iter().enumerate().filter(move |(at, _)| shown.contains(at)).map(|(_, row)| row)
        });
        chosen.collect()
    }
}

fn by_reward(a: &RolloutRow, b: &RolloutRow) -> Ordering {
    let reward = |row: &RolloutRow| row.reward.unwrap_or(f64::NEG_INFINITY);
    reward(a).total_cmp(&reward(b))
}

#[cfg(test)]
mod tests {
    use align_reward::rollout::Rollout;

    use super::*;

    fn rows() -> Vec<RolloutRow> {
        let row = |(step, group, reward): (u64, u64, Option<f64>)| {
            let text = reward.map_or_else(|| "none".into(), |reward| format!("{reward}"));
            RolloutRow { reward, ..RolloutRow::new(step, &Rollout::new("p", text).in_group(group)) }
        };
        let all = [
            (1, 0, Some(0.5)),
            (1, 0, None),
            (1, 0, Some(2.0)),
            (1, 1, Some(-1.0)),
            (2, 0, Some(7.0)),
            (2, 0, Some(3.0)),
        ];
        all.into_iter().map(row).collect()
    }

    fn shown(selection: RolloutSelection) -> Vec<String> {
        selection.apply(rows()).into_iter().map(|row| row.completion).collect()
    }

    #[test]
    fn rows_are_filtered_sorted_and_limited() {
        let all = RolloutSelection::default();
        assert_eq!(shown(all), ["0.5", "none", "2", "-1", "7", "3"]);
        assert_eq!(shown(RolloutSelection { step: Some(2), ..all }), ["7", "3"]);
        let highest = RolloutSelection { order: RolloutOrder::HighestReward, ..all };
        assert_eq!(shown(highest), ["7", "3", "2", "0.5", "-1", "none"]);
        let lowest =
            RolloutSelection { order: RolloutOrder::LowestReward, limit: NonZeroUsize::new(2), ..all };
        assert_eq!(shown(lowest), ["-1", "0.5"]);
    }

    #[test]
    fn the_best_and_the_worst_of_each_group() {
        let of = |of_group| shown(RolloutSelection { of_group, ..RolloutSelection::default() });
        assert_eq!(of(OfGroup::Best), ["2", "-1", "7"]);
        assert_eq!(of(OfGroup::Worst), ["0.5", "-1", "3"]);
        assert_eq!(of(OfGroup::BestAndWorst), ["2", "0.5", "-1", "7", "3"]);
    }
}
