//! Named numbers of one step.

/// Named numbers of one step, in the order in which they were measured. A name occurs once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; one of the same name is replaced.
    pub fn add(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The number of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All names and numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The names, for people.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(all: I) -> Self {
        let mut metrics = Self::new();
        metrics.extend(all);
        metrics
    }
}

impl<N: Into<String>> Extend<(N, f64)> for Metrics {
    fn extend<I: IntoIterator<Item = (N, f64)>>(&mut self, all: I) {
        for (name, value) in all {
            self.add(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_occurs_once_and_keeps_its_place() {
        let mut metrics: Metrics = [("loss", 1.0), ("accuracy", 0.5)].into_iter().collect();
        metrics.add("loss", 2.0);
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("loss", 2.0), ("accuracy", 0.5)]);
        assert_eq!((metrics.get("accuracy"), metrics.get("norm")), (Some(0.5), None));
        assert_eq!((metrics.names(), Metrics::new().names()), ("loss, accuracy".into(), "none".into()));
    }
}
