//! Run files: TOML, with values from the command line in place of some of its own, and errors that say where.

pub(crate) mod adapter;
pub(crate) mod data;
pub(crate) mod date;
pub(crate) mod rewards;
mod run;
mod teacher;

use std::{fmt, path::Path, str::FromStr};

use anyhow::{Context as _, Result, anyhow};
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

pub(crate) use run::{CriticTable, Run, SavedForm};
pub(crate) use teacher::TeacherTable;

/// A value that takes the place of one in the run file: `sft.update.learning_rate=1e-4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    key: String,
    /// The value as TOML.
    value: String,
}

impl Override {
    /// A text for a key.
    pub(crate) fn text(key: &str, text: &str) -> Self {
        Self { key: key.into(), value: toml::Value::from(text).to_string() }
    }

    /// The first part of the key: a table of the run file, or a value outside of all.
    pub(crate) fn table(&self) -> &str {
        self.key.split('.').next().unwrap_or_default()
    }

    /// How many tables the key goes down before its last part.
    fn depth(&self) -> usize {
        self.key.matches('.').count()
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        let (key, value) = (key.trim(), value.trim());
        let is_name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        if !key.split('.').all(is_name) {
            return Err(format!("`{key}` is not a dotted key such as sft.update.learning_rate"));
        }
        if DeValue::parse(value).is_ok() {
            return Ok(Self { key: key.into(), value: value.into() });
        }
        Ok(Self::text(key, value))
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Reads a run file and puts the overrides in, the last one of a key on top.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, overrides: &[Override]) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, path, overrides)
}

/// As [`read`], of a text; `path` is only for messages.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, path: &Path, overrides: &[Override]) -> Result<T> {
    // Each override stands behind the file and behind those before it, so that an error's position tells whose it is.
    let mut end = text.len();
    let mut lines = Vec::new();
    for one in overrides {
        let line = format!("{}{} = {}", " ".repeat(end), one.key, one.value);
        end = line.len();
        lines.push(line);
    }
    let places = Places { path, text, overrides, lines: &lines };
    let nothing = toml::Spanned::new(0..0, DeTable::new());
    let mut document = DeTable::parse(text).map_err(|error| places.explain(&error, &nothing))?;
    for (one, line) in overrides.iter().zip(&lines) {
        let table = DeTable::parse(line).map_err(|error| places.explain(&error, &nothing))?;
        graft(document.get_mut(), table.into_inner(), one.depth());
    }
    let keys = document.clone();
    T::deserialize(Deserializer::from(document)).map_err(|error| places.explain(&error, &keys))
}

/// Puts the only entry of `source`, `depth` tables down, into `target`, in place of what is there.
fn graft<'a>(target: &mut DeTable<'a>, source: DeTable<'a>, depth: usize) {
    let Some((key, mut value)) = source.into_iter().next() else { return };
    let present = target.get_mut(key.get_ref().as_ref()).map(toml::Spanned::get_mut);
    if depth > 0
        && let (Some(DeValue::Table(inner)), DeValue::Table(rest)) = (present, value.get_mut())
    {
        return graft(inner, std::mem::take(rest), depth - 1);
    }
    // Removed first: a map keeps the old key, which knows the old place.
    target.remove(key.get_ref().as_ref());
    target.insert(key, value);
}

/// A run file and the overrides behind it, to say where an error is.
struct Places<'a> {
    path: &'a Path,
    text: &'a str,
    overrides: &'a [Override],
    lines: &'a [String],
}

impl Places<'_> {
    fn explain(&self, error: &Error, keys: &toml::Spanned<DeTable<'_>>) -> anyhow::Error {
        let (path, message) = (self.path.display(), error.message());
        let Some(span) = error.span() else { return anyhow!("{path}: {message}") };
        if message.starts_with("missing field") && span == keys.span() {
            return anyhow!("{path}: {message}: set it in the file or on the command line");
        }
        if span.start >= self.text.len()
            && let Some(index) = self.lines.iter().position(|line| span.start < line.len())
        {
            return anyhow!("--set {}: {message}", self.overrides[index]);
        }
        let line = self.text[..span.start].matches('\n').count() + 1;
        match key_at(keys.get_ref(), span.start) {
            Some(key) => anyhow!("{path}:{line}: {key}: {message}"),
            None => {
                anyhow!("{path}:{line}: {message}: {}", self.text.lines().nth(line - 1).unwrap_or_default())
            }
        }
    }
}

/// The dotted key whose name or value holds this position.
fn key_at(table: &DeTable<'_>, position: usize) -> Option<String> {
    let inside = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &toml::Spanned<toml::de::DeString<'_>> = key;
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(rest) = key_at(inner, position)
        {
            return Some(format!("{}.{rest}", key.get_ref()));
        }
        let here = key.span().contains(&position) || value.span().contains(&position);
        here.then(|| key.get_ref().to_string())
    };
    table.iter().find_map(inside)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use align_dpo::{DpoConfig, KtoConfig};
    use align_model::{device::DeviceName, pretrained::SavedDtype, sft::SftConfig};
    use align_reward::trainer::RewardConfig;
    use align_rl::{DistillationConfig, GroupConfig, OnlineConfig, PpoConfig, RejectionSamplingConfig};

    use super::*;
    use crate::{method::Settings, training::findings::Findings};

    const FILE: &str =
        "model = \"m\"\ndata = \"d\"\nout = \"o\"\n\n[sft]\nbatch_size = 4\nupdate.learning_rate = 1e-3\n";

    fn with(text: &str, overrides: &[&str]) -> Result<Run<SftConfig>> {
        let overrides: Vec<Override> = overrides.iter().map(|one| one.parse().unwrap()).collect();
        parse(text, Path::new("run.toml"), &overrides)
    }

    #[track_caller]
    fn fails(text: &str, overrides: &[&str], expected: &str) {
        let error = with(text, overrides).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let run = with(FILE, &[]).unwrap();
        assert_eq!(run.method.batch_size.get(), 4);
        assert_eq!(run.method.max_length, SftConfig::default().max_length);
        assert_eq!(run.device, DeviceName::FLEX);
    }

    #[test]
    fn overrides_win() {
        let run = with(
            FILE,
            &[
                "sft.update.learning_rate=1e-4",
                "model=some/where",
                "save.dtype=bfloat16",
                "sft.duration={ steps = 3 }",
                "sft.seed=1",
                "sft.seed=2",
                "sft.update.max_grad_norm=1",
            ],
        )
        .unwrap();
        assert!((run.method.update.learning_rate.get() - 1e-4).abs() < 1e-12);
        assert_eq!(run.model, Path::new("some/where"));
        assert_eq!(run.save.dtype, SavedDtype::Bfloat16);
        assert_eq!(run.method.duration.steps(1000, run.method.batch_size), 3);
        assert_eq!(run.method.seed, 2);
        assert_eq!(run.method.batch_size.get(), 4, "what stands beside an override stays");
        assert_eq!(run.method.update.max_grad_norm.get().to_bits(), 1f64.to_bits());
    }

    #[test]
    fn errors_say_where() {
        fails(
            &FILE.replace("learning_rate", "rate"),
            &[],
            "run.toml:7: sft.update.rate: unknown field `rate`",
        );
        fails(
            &FILE.replace("batch_size = 4", "batch_size = \"four\""),
            &[],
            "run.toml:6: sft.batch_size: invalid type",
        );
        fails(
            &FILE.replace("1e-3", "-1"),
            &[],
            "run.toml:7: sft.update.learning_rate: -1 is not a finite number",
        );
        fails(&FILE.replace("data", "dta"), &[], "run.toml:2: dta: unknown field `dta`");
        fails(&FILE.replace("= 4", "= = 4"), &[], "run.toml:6: ");
        fails(FILE, &["device=tpu"], "--set device=\"tpu\": unknown device `tpu`");
        fails(FILE, &["sft.update.lr=1"], "--set sft.update.lr=1: unknown field `lr`");
        fails(FILE, &["sft.seed=1", "sft.batch_size=many"], "--set sft.batch_size=\"many\": invalid type");
        fails("", &[], "run.toml: missing field `model`");
        fails("", &["model=m"], "run.toml: missing field `out`");
        fails("", &["model=m", "out=o"], "run.toml: missing field `data`");
        fails("model = \"m\"\n\n[sft]\nseed = 1\n", &["out=o"], "run.toml: missing field `data`");
        fails(
            "[sft.loss]\nlabel_smoothing = 0.1\n",
            &["model=m", "data=d", "out=o"],
            "run.toml:1: sft.loss: missing field `kind`",
        );
    }

    #[test]
    fn an_override_needs_a_key() {
        for text in ["sft", "=1", "sft..seed=1", "a b=1"] {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_resolved_run_reads_again() {
        let run = with(FILE, &["sft.loss={ kind = 'dft' }", "device=cuda:1"]).unwrap();
        let text = toml::to_string(&run).unwrap();
        assert_eq!(with(&text, &[]).unwrap(), run);
    }

    #[test]
    fn the_examples_are_runs() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/configs"));
        let files: Vec<PathBuf> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 6);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let is_run_of = |name: &str| text.contains(&format!("\n[{name}]\n"));
            match () {
                () if is_run_of("dpo") => is_run::<DpoConfig>(&file),
                () if is_run_of("kto") => is_run::<KtoConfig>(&file),
                () if is_run_of("reward") => is_run::<RewardConfig>(&file),
                () if is_run_of("grpo") => is_run::<GroupConfig>(&file),
                () if is_run_of("ppo") => is_run::<PpoConfig>(&file),
                () if is_run_of("online") => is_run::<OnlineConfig>(&file),
                () if is_run_of("raft") => is_run::<RejectionSamplingConfig>(&file),
                () if is_run_of("distill") => is_run::<DistillationConfig>(&file),
                () => is_run::<SftConfig>(&file),
            }
        }
    }

    #[track_caller]
    fn is_run<C: Settings>(file: &Path) {
        let run: Run<C> = read(file, &[]).unwrap();
        let mut findings = Findings::default();
        run.resolve(false).check(&mut findings);
        assert_eq!(findings.problems(), Vec::<String>::new(), "{}", file.display());
    }

    #[test]
    fn the_table_of_settings_has_the_name_of_the_method() {
        let text = FILE.replace("[sft]", "[dpo]");
        let run: Run<DpoConfig> = parse(&text, Path::new("run.toml"), &[]).unwrap();
        assert_eq!(run.method.batch_size.get(), 4);
        let error = parse::<Run<KtoConfig>>(&text, Path::new("run.toml"), &[]).unwrap_err().to_string();
        assert!(error.starts_with("run.toml:5: dpo: unknown field `dpo`, expected one of "), "{error}");
        assert!(error.contains("`kto`") && !error.contains("`sft`"), "{error}");
    }
}
