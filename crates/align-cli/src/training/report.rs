//! The page that shows a run: while it lasts, and afterwards.

mod figures;

use std::{path::Path, time::Duration};

use anyhow::Result;
use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};

use super::{
    history::{History, Moment},
    machine::{self, Machine},
};
use crate::page;

/// What a report tells of a run besides its measurements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Portrait {
    /// What kind of training it is, in words.
    pub(crate) method: String,
    /// The model that it started from.
    pub(crate) model: String,
    /// Where it computes.
    pub(crate) device: String,
    /// Where everything is written.
    pub(crate) out: String,
    /// Steps in all.
    pub(crate) total_steps: u64,
    /// What is trained and on what: names and values.
    pub(crate) facts: Vec<Fact>,
    /// What is worth a second look.
    pub(crate) warnings: Vec<String>,
    /// The run file with every default written out.
    pub(crate) settings: String,
    /// How to use what the run made: lines of a shell.
    pub(crate) next: Vec<String>,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fact {
    /// What it is.
    pub(crate) name: String,
    /// What it has come to.
    pub(crate) value: String,
}

impl Fact {
    /// A fact.
    pub(crate) fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "reason", rename_all = "snake_case")]
pub(crate) enum Standing {
    /// It goes on.
    Running,
    /// It came to its end.
    Finished,
    /// It ended before its last step, for this reason, and all is well.
    Stopped(String),
    /// It broke off for this reason.
    Failed(String),
}

/// What a model wrote after a step; 0 is before the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// The step.
    pub(crate) step: u64,
    /// What it was given, for people.
    pub(crate) prompt: String,
    /// What it wrote.
    pub(crate) completion: String,
}

/// A checkpoint on the disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct KeptCheckpoint {
    /// Its directory's name.
    pub(crate) name: String,
    /// The step that it was written after.
    pub(crate) step: u64,
    /// Its size, for people.
    pub(crate) size: String,
    /// What was measured at that step, for people.
    pub(crate) note: String,
}

/// Everything on the page.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// What the run is.
    pub(crate) portrait: &'a Portrait,
    /// The machine that it is on.
    pub(crate) machine: &'a Machine,
    /// How it stands.
    pub(crate) standing: &'a Standing,
    /// What was measured.
    pub(crate) history: &'a History,
    /// When.
    pub(crate) moments: &'a [Moment],
    /// What the model wrote.
    pub(crate) samples: &'a [Sample],
    /// The checkpoints.
    pub(crate) checkpoints: &'a [KeptCheckpoint],
}

/// What the template sees.
#[derive(Serialize)]
struct View<'a> {
    version: &'static str,
    portrait: &'a Portrait,
    standing: &'a Standing,
    step: u64,
    percent: f64,
    time: String,
    left: Option<String>,
    tiles: Vec<figures::Tile>,
    charts: Vec<figures::Figure>,
    prompts: Vec<PromptView<'a>>,
    checkpoints: &'a [KeptCheckpoint],
    machine: Vec<Fact>,
}

/// A prompt and what became of its answer.
#[derive(Serialize)]
struct PromptView<'a> {
    prompt: &'a str,
    first: &'a Sample,
    /// Later ones, the last first.
    later: Vec<&'a Sample>,
}

impl Report<'_> {
    /// Writes the page.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        page::write(path, include_str!("report/report.html.jinja"), &self.view()?)
    }

    fn view(&self) -> Result<View<'_>> {
        let (step, seconds) = self.moments.last().map_or((0, 0.0), |moment| (moment.step, moment.seconds));
        let (portrait, steps_left) = (self.portrait, self.portrait.total_steps.saturating_sub(step));
        let left = (*self.standing == Standing::Running && step > 0)
            .then(|| human(seconds / step as f64 * steps_left as f64));
        Ok(View {
            version: env!("CARGO_PKG_VERSION"),
            portrait,
            standing: self.standing,
            step,
            percent: 100.0 * step as f64 / portrait.total_steps.max(1) as f64,
            time: human(seconds),
            left,
            tiles: figures::tiles(self.history, self.moments),
            charts: figures::figures(self.history, self.moments)?,
            prompts: prompts(self.samples),
            checkpoints: self.checkpoints,
            machine: self.machine_facts(),
        })
    }

    fn machine_facts(&self) -> Vec<Fact> {
        let machine = self.machine;
        let mut facts = vec![
            Fact::new("device", &self.portrait.device),
            Fact::new("processor", machine.processor.as_deref().unwrap_or("unknown")),
            Fact::new("threads", machine.threads),
        ];
        facts.extend(machine.memory.map(|memory| Fact::new("memory", machine::bytes(memory))));
        facts.extend(machine::peak_memory().map(|peak| Fact::new("peak memory", machine::bytes(peak))));
        facts.push(Fact::new("system", &machine.system));
        facts
    }
}

/// A time for people.
pub(crate) fn human(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.0} ms", 1000.0 * seconds);
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    HumanDuration(Duration::from_secs_f64(seconds)).to_string()
}

/// The samples of each prompt together, in the order of the prompts.
fn prompts(samples: &[Sample]) -> Vec<PromptView<'_>> {
    let mut views: Vec<PromptView<'_>> = Vec::new();
    for sample in samples {
        match views.iter_mut().find(|view| view.prompt == sample.prompt) {
            Some(view) => view.later.insert(0, sample),
            None => views.push(PromptView { prompt: &sample.prompt, first: sample, later: Vec::new() }),
        }
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(step: u64, text: &str) -> Sample {
        Sample { step, prompt: "Who <is> it?".into(), completion: text.into() }
    }

    #[test]
    fn a_page_shows_what_is_known_and_loads_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        let mut history = History::default();
        for step in 1..=20 {
            history.add(step, [("loss", 2.0 / step as f64), ("learning_rate", 1e-5), ("own_metric", -1.0)]);
        }
        history.add(20, [("eval_loss", 0.25)]);
        let moment = |step| Moment { step, seconds: step as f64, tokens_per_second: 800.0 };
        let moments: Vec<Moment> = (1..=20).map(moment).collect();
        let portrait = Portrait {
            method: "Supervised fine-tuning".into(),
            model: "a/model".into(),
            device: "flex".into(),
            out: "runs/a".into(),
            total_steps: 40,
            facts: vec![Fact::new("samples", 7)],
            warnings: vec!["2 samples were cut".into()],
            settings: "model = \"a/model\"".into(),
            next: vec!["align chat --model runs/a".into()],
        };
        let samples = [sample(0, "the <b>first"), sample(10, "the middle"), sample(20, "the last")];
        let checkpoint = KeptCheckpoint {
            name: "checkpoint-000020".into(),
            step: 20,
            size: "1 MiB".into(),
            note: "best".into(),
        };
        let report = Report {
            portrait: &portrait,
            machine: &Machine::look(),
            standing: &Standing::Running,
            history: &history,
            moments: &moments,
            samples: &samples,
            checkpoints: &[checkpoint],
        };
        report.write(&path).unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        for expected in [
            "step 20 of 40",
            "Who &lt;is&gt; it?",
            "the &lt;b&gt;first",
            "the last",
            "checkpoint-000020",
            "2 samples were cut",
            "own metric",
            "learning rate",
            "align chat --model runs",
            "800",
        ] {
            assert!(page.contains(expected), "{expected}");
        }
        for forbidden in ["<script", "<link", "<img", "@import", "url(", " src=", "href="] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
