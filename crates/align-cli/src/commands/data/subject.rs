//! What is inspected, and as what.

use std::{
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use align_model::data::{Combine, DatasetConfig, SourceConfig};
use anyhow::{Context as _, Result};
use chrono::NaiveDateTime;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use crate::{
    args::{InspectArguments, METHODS},
    method::Settings,
    run_file::{self, Run, date::RunDate},
};

/// What is inspected, and as what.
pub(super) struct Subject<C> {
    pub(super) data: DatasetConfig,
    pub(super) evaluation: Option<DatasetConfig>,
    pub(super) model: Option<PathBuf>,
    pub(super) settings: C,
    /// What chat templates that ask for the date are told.
    pub(super) now: NaiveDateTime,
}

impl<C: Settings> Subject<C> {
    /// What the command line and the run file name.
    pub(super) fn new(args: &InspectArguments) -> Result<Self> {
        let (data, evaluation) = (files(&args.data), files(&args.evaluation));
        let Some(path) = &args.config else {
            let Alone(settings) = run_file::parse("", Path::new("the settings"), &args.overrides)?;
            let data = data.context("name the data with --data, or a run file with --config")?;
            let (model, now) = (args.model.clone(), RunDate::now().get());
            return Ok(Self { data, evaluation, model, settings, now });
        };
        let run: Run<C> = run_file::read(path, &args.overrides)?;
        let contradicts = || format!("{}: [{}] contradicts itself", path.display(), C::NAME);
        run.method.check().with_context(contradicts)?;
        Ok(Self {
            data: data.unwrap_or(run.data.train),
            evaluation: evaluation.or(run.data.evaluation),
            model: Some(args.model.clone().unwrap_or(run.model)),
            settings: run.method,
            now: run.date.unwrap_or_else(RunDate::now).get(),
        })
    }
}

/// The method that reads the data: the one whose table the run file or an override names.
pub(super) fn method_of(args: &InspectArguments) -> Result<String> {
    if let Some(method) = &args.method {
        return Ok(method.clone());
    }
    let mut named: Vec<String> = args.overrides.iter().map(|one| one.table().to_owned()).collect();
    if let Some(path) = &args.config {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        // What is wrong with the file is said by who reads all of it.
        named.extend(text.parse::<toml::Table>().unwrap_or_default().into_iter().map(|(key, _)| key));
    }
    let method = METHODS.into_iter().find(|method| named.iter().any(|name| name == method));
    Ok(method.unwrap_or(METHODS[0]).to_owned())
}

/// Files of the command line as one data set; `None` where there are none.
fn files(paths: &[PathBuf]) -> Option<DatasetConfig> {
    let sources = paths.iter().map(|path| SourceConfig::new(path.to_string_lossy())).collect();
    (!paths.is_empty()).then(|| DatasetConfig { sources, combine: Combine::default() })
}

/// The settings of a method where there is no run file.
struct Alone<C>(C);

impl<C: Settings> Alone<C> {
    const EXPECTED: &'static [&'static str] = &[C::NAME];
}

impl<'de, C: Settings> Deserialize<'de> for Alone<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AloneVisitor(PhantomData))
    }
}

struct AloneVisitor<C>(PhantomData<C>);

impl<'de, C: Settings> Visitor<'de> for AloneVisitor<C> {
    type Value = Alone<C>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table `{}`", C::NAME)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Alone<C>, A::Error> {
        let mut settings = C::default();
        while let Some(key) = map.next_key::<String>()? {
            if key != C::NAME {
                return Err(de::Error::unknown_field(&key, Alone::<C>::EXPECTED));
            }
            settings = map.next_value()?;
        }
        Ok(Alone(settings))
    }
}
