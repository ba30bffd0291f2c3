//! Everything that is wrong with a run, not only the first thing.

use anyhow::{Error, Result, anyhow};

/// What the checks before a run found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Error>,
    warnings: Vec<String>,
}

impl Findings {
    /// The value of a check that succeeded; a failure is kept as a problem.
    pub(crate) fn keep<T>(&mut self, checked: Result<T>) -> Option<T> {
        checked.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Adds something that does not stop the run but that its user will want to know.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// What the user will want to know.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What stands in the way, each in one line.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.iter().map(|problem| format!("{problem:#}")).collect()
    }

    /// Fails if anything stands in the way: with the problem itself if it is the only one, else with a list.
    pub(crate) fn into_result(mut self) -> Result<Vec<String>> {
        match self.problems.len() {
            0 => Ok(self.warnings),
            1 => Err(self.problems.remove(0)),
            count => Err(anyhow!("{count} things stand in the way:\n{}", numbered(&self.problems()))),
        }
    }
}

/// A numbered list, one entry a line.
pub(crate) fn numbered(entries: &[String]) -> String {
    let lines = entries.iter().enumerate().map(|(index, entry)| format!("  {}. {entry}", index + 1));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_single_problem_stands_for_itself_and_several_make_a_list() {
        let mut findings = Findings::default();
        assert_eq!(findings.keep(Ok(3)), Some(3));
        findings.warn("slow");
        let missing = || Err::<(), _>(anyhow!("no such file")).context("cannot read x");
        assert_eq!(findings.keep(missing()), None);
        assert_eq!(findings.problems(), ["cannot read x: no such file"]);
        findings.keep(missing());
        let list =
            "2 things stand in the way:\n  1. cannot read x: no such file\n  2. cannot read x: no such file";
        assert_eq!(findings.into_result().unwrap_err().to_string(), list);

        let mut findings = Findings::default();
        findings.keep(missing());
        assert_eq!(findings.into_result().unwrap_err().to_string(), "cannot read x");
        assert_eq!(Findings::default().into_result().unwrap(), Vec::<String>::new());
    }
}
