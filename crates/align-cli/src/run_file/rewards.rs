//! The rewards that a run learns from.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
};

use align_reward::{
    compose::{MissingPart, WeightedPart, WeightedSum},
    function::BoxedReward,
    guard::OveroptimizationConfig,
    spec::RewardSpec,
};
use align_rl::{Constraint, ConstraintConfig, Rewards};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

/// Rewards that are added up. In a run file they are a list, or a table with the list as `parts`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct RewardsTable {
    /// What becomes of a completion that some of them cannot score.
    pub(crate) missing: MissingPart,
    /// The rewards.
    pub(crate) parts: Vec<RewardTable>,
}

/// A better measure than the rewards, such as another reward model, that tells when a run only pleases its rewards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoldTable {
    /// What it is.
    pub(crate) rewards: RewardsTable,
    /// Steps from one look to the next; besides, before the first step and after the last.
    pub(crate) every: NonZeroU64,
    /// When it warns and when it ends the run.
    #[serde(default)]
    pub(crate) alarm: OveroptimizationConfig,
}

/// A reward and what it counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RewardTable {
    /// The reward.
    #[serde(flatten)]
    pub(crate) source: RewardSource,
    /// What it is multiplied by, 1 if nothing is said; `None` of a cost, which has a price instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<f64>,
    /// What keeps its mean below a limit, if it is a cost and not a reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<ConstraintConfig>,
}

/// Where scores come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum RewardSource {
    /// A trained reward model.
    Model(ModelTable),
    /// A rule, a program, an endpoint, or several of them put together.
    Described(RewardSpec),
}

/// A reward model, such as `align reward` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelTable {
    kind: ModelTag,
    /// Its directory, or its name on the Hub.
    pub(crate) path: PathBuf,
    /// What it is called in metrics and rollouts.
    #[serde(default = "default_name")]
    pub(crate) name: String,
    /// Sequences that it reads at once.
    #[serde(default = "default_at_once")]
    pub(crate) micro_batch_size: NonZeroUsize,
}

/// What tells a reward model from what [`RewardSpec`] describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ModelTag {
    Model,
}

fn default_name() -> String {
    "model".into()
}

const fn default_at_once() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

impl RewardsTable {
    /// Whether there is nothing to learn from.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.cost.is_some())
    }

    /// Whether there are costs among them.
    pub(crate) fn has_costs(&self) -> bool {
        self.parts.iter().any(|part| part.cost.is_some())
    }

    /// Makes the rewards that a policy is trained on; `load` makes that of a reward model.
    pub(crate) fn training(&self, load: impl Fn(&ModelTable) -> Result<BoxedReward>) -> Result<Rewards> {
        let (mut parts, mut constraints) = (Vec::new(), Vec::new());
        for (index, part) in self.parts.iter().enumerate() {
            let reward = part.build(index, &load)?;
            match part.cost {
                Some(config) => constraints.push(Constraint::new(reward, config)),
                None => parts.push(WeightedPart { weight: part.counted(), reward }),
            }
        }
        Ok(Rewards::sum(parts, self.missing).under(constraints))
    }

    /// Makes the rewards to measure by: costs are measured, and count nothing.
    pub(crate) fn build(&self, load: impl Fn(&ModelTable) -> Result<BoxedReward>) -> Result<WeightedSum> {
        let build = |(index, part): (usize, &RewardTable)| {
            Ok(WeightedPart { weight: part.counted(), reward: part.build(index, &load)? })
        };
        let parts = self.parts.iter().enumerate().map(build).collect::<Result<_>>()?;
        Ok(WeightedSum::new("reward", parts, self.missing))
    }

    /// Directories of reward models.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| match &part.source {
            RewardSource::Model(table) => Some(table.path.as_path()),
            RewardSource::Described(_) => None,
        })
    }

    /// What they are, for people.
    pub(crate) fn described(&self) -> String {
        let kind = |part: &RewardTable| {
            let value = serde_json::to_value(&part.source).unwrap_or_default();
            let kind = value["kind"].as_str().unwrap_or("reward");
            match (part.cost, part.weight) {
                (Some(cost), _) => format!("{kind} at most {}", cost.limit),
                (None, Some(weight)) if (weight - 1.0).abs() > f64::EPSILON => format!("{weight} × {kind}"),
                _ => kind.to_owned(),
            }
        };
        self.parts.iter().map(kind).collect::<Vec<_>>().join(" + ")
    }
}

impl RewardTable {
    /// What it is multiplied by; 0 of a cost.
    fn counted(&self) -> f64 {
        if self.cost.is_some() { 0.0 } else { self.weight.unwrap_or(1.0) }
    }

    fn build(&self, index: usize, load: impl Fn(&ModelTable) -> Result<BoxedReward>) -> Result<BoxedReward> {
        let weight = self.counted();
        ensure!(weight.is_finite(), "rewards[{index}].weight is {weight}, expected a finite number");
        ensure!(
            self.cost.is_none() || self.weight.is_none(),
            "rewards[{index}] has a `weight` and is a cost, whose weight is a price that the run finds out: leave one out"
        );
        ensure!(
            self.cost.is_none_or(|cost| cost.limit.is_finite()),
            "rewards[{index}].cost.limit is no finite number"
        );
        let reward = match &self.source {
            RewardSource::Model(table) => load(table),
            RewardSource::Described(spec) => spec.build().map_err(Into::into),
        };
        reward.with_context(|| format!("rewards[{index}]"))
    }
}

impl<'de> Deserialize<'de> for RewardsTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            #[serde(default)]
            missing: MissingPart,
            parts: Vec<RewardTable>,
        }
        let value = match Value::deserialize(deserializer)? {
            list @ Value::Array(_) => Map::from_iter([("parts".to_owned(), list)]).into(),
            table => table,
        };
        let Parts { missing, parts } = serde_json::from_value(value).map_err(de::Error::custom)?;
        Ok(Self { missing, parts })
    }
}

impl<'de> Deserialize<'de> for RewardTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let weight = table.remove("weight").map(serde_json::from_value).transpose();
        let weight = weight.map_err(de::Error::custom)?;
        let cost = table.remove("cost").map(serde_json::from_value).transpose();
        let cost = cost.map_err(|error| de::Error::custom(format!("cost: {error}")))?;
        let is_model = table.get("kind").is_some_and(|kind| kind == "model");
        let table = Value::Object(table);
        let source = if is_model {
            serde_json::from_value(table).map(RewardSource::Model)
        } else {
            serde_json::from_value(table).map(RewardSource::Described)
        };
        Ok(Self { source: source.map_err(de::Error::custom)?, weight, cost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct File {
        rewards: RewardsTable,
    }

    fn read(text: &str) -> Result<RewardsTable, String> {
        toml::from_str::<File>(text).map(|file| file.rewards).map_err(|error| error.message().to_owned())
    }

    const TWO: &str = "[[rewards]]\nkind = \"numeric\"\n\n[[rewards]]\nkind = \"model\"\npath = \"runs/reward\"\nweight = 0.5\n";

    #[test]
    fn rewards_are_a_list_or_a_table() {
        let list = read(TWO).unwrap();
        assert_eq!(list.described(), "numeric + 0.5 × model");
        assert_eq!(list.models().collect::<Vec<_>>(), [Path::new("runs/reward")]);
        let table = "[rewards]\nmissing = \"leave_out\"\nparts = [{ kind = \"numeric\" }]\n";
        assert_eq!(read(table).unwrap().missing, MissingPart::LeaveOut);
    }

    #[test]
    fn what_is_written_reads_again() {
        let file = File { rewards: read(TWO).unwrap() };
        let text = toml::to_string(&file).unwrap();
        assert_eq!(read(&text).unwrap(), file.rewards, "{text}");
    }

    #[test]
    fn what_is_no_reward_is_refused() {
        assert!(read("[[rewards]]\nkind = \"magic\"\n").unwrap_err().contains("magic"));
        assert!(read("[[rewards]]\nkind = \"model\"\n").unwrap_err().contains("path"));
        assert!(
            read("[[rewards]]\nkind = \"model\"\npath = \"a\"\nrank = 1\n").unwrap_err().contains("rank")
        );
        assert!(read("[[rewards]]\nkind = \"numeric\"\nweight = \"a\"\n").is_err());
    }

    #[test]
    fn a_reward_that_cannot_be_made_is_named() {
        let table =
            read("[[rewards]]\nkind = \"finished\"\n[[rewards]]\nkind = \"regex\"\npattern = \"(\"\n")
                .unwrap();
        let error = table.build(|_| unreachable!("there is no model")).err().unwrap();
        assert!(format!("{error:#}").starts_with("rewards[1]: `(` is no regular expression"), "{error:#}");
        let mut table = read(TWO).unwrap();
        table.parts[0].weight = Some(f64::INFINITY);
        let error = table.build(|_| unreachable!("the first is wrong")).err().unwrap();
        assert!(error.to_string().starts_with("rewards[0].weight is inf"), "{error}");
    }
    #[test]
    fn a_cost_has_a_limit_and_no_weight() {
        let text =
            "[[rewards]]\nkind = \"numeric\"\n[[rewards]]\nkind = \"finished\"\ncost = { limit = 0.5 }\n";
        let table = read(text).unwrap();
        assert_eq!(table.described(), "numeric + finished at most 0.5");
        assert!(table.has_costs() && !table.is_empty());
        let none = |_: &ModelTable| unreachable!("there is no model");
        assert!(table.training(none).is_ok() && table.build(none).is_ok());
        let written = toml::to_string(&File { rewards: table.clone() }).unwrap();
        assert_eq!(read(&written).unwrap(), table, "{written}");
        let both = read(&text.replace("cost =", "weight = 2.0\ncost =")).unwrap();
        let error = both.training(none).err().unwrap();
        assert!(error.to_string().starts_with("rewards[1] has a `weight` and is a cost"), "{error}");
        let costs = read("[[rewards]]\nkind = \"finished\"\ncost = { limit = 0.5 }\n").unwrap();
        assert!(costs.is_empty(), "there is nothing to learn from costs alone");
        let error = read(&text.replace("limit", "limits")).unwrap_err();
        assert!(error.contains("cost") && error.contains("limits"), "{error}");
    }
}
