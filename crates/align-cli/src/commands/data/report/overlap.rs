//! What evaluation data and training data have in common.

use align_model::inspect::{Overlap, OverlapMatch};

use super::Report;

impl Report {
    pub(super) fn overlap(&mut self, overlap: &Overlap) {
        let ngrams = &overlap.ngrams;
        self.line("evaluation", format_args!("{} records", overlap.evaluation_records));
        self.matches("in the training data", &overlap.exact);
        self.matches("nearly in the training data", &overlap.near);
        self.more(format_args!(
            "{} of {} share a run of {} words with the training data, {} of them at least 70 % of their runs",
            ngrams.touched, ngrams.compared, ngrams.words, ngrams.contained
        ));
        self.list(ngrams.records.iter().map(|record| {
            let percent = 100.0 * record.share;
            format!("{}: {percent:.0} %, in {}: {}", record.evaluation, record.training, record.example)
        }));
        if ngrams.too_short > 0 {
            self.more(format_args!("{} are too short to be looked for by their words", ngrams.too_short));
        }
    }

    fn matches(&mut self, what: &str, matches: &[OverlapMatch]) {
        self.more(format_args!("{} are {what}", matches.len()));
        self.list(matches.iter().map(|found| {
            let OverlapMatch { evaluation, training, similarity } = found;
            format!("{evaluation}: as {training} (similarity {similarity:.2})")
        }));
    }
}
