//! The date that chat templates are told: part of a run's settings, so that its repetition has the same bits.

use std::{fmt, path::Path};

use chrono::{Local, NaiveDateTime, Timelike as _};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// A date and a time of day, written as `2026-01-31T12:00:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct RunDate(NaiveDateTime);

impl RunDate {
    /// This second.
    pub(crate) fn now() -> Self {
        let now = Local::now().naive_local();
        Self(now.with_nanosecond(0).unwrap_or(now))
    }

    /// The date of a run that was begun with this file of settings.
    pub(crate) fn of_run(settings: &Path) -> Option<Self> {
        #[derive(Deserialize)]
        struct Dated {
            date: RunDate,
        }
        let text = std::fs::read_to_string(settings).ok()?;
        toml::from_str::<Dated>(&text).ok().map(|dated| dated.date)
    }

    /// What templates are told.
    pub(crate) fn get(self) -> NaiveDateTime {
        self.0
    }
}

impl TryFrom<String> for RunDate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let date = NaiveDateTime::parse_from_str(&text, FORMAT);
        date.map(Self).map_err(|_| format!("`{text}` is no date: write it as \"2026-01-31T12:00:00\""))
    }
}

impl From<RunDate> for String {
    fn from(date: RunDate) -> Self {
        date.to_string()
    }
}

impl fmt::Display for RunDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format(FORMAT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_reads_as_it_is_written() {
        let now = RunDate::now();
        assert_eq!(RunDate::try_from(now.to_string()).unwrap(), now);
        assert!(RunDate::try_from("yesterday".to_owned()).unwrap_err().contains("write it as"));
    }
}
