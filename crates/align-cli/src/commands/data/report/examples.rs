//! What a method makes of its records, for a person to read.

use super::{
    super::examples::{ExampleFindings, RenderedExample},
    Marks, Report,
    samples::{how, piece},
};

impl Report {
    pub(super) fn examples(&mut self, found: &ExampleFindings) {
        self.line("examples", format_args!("{} {}", found.count, found.plural));
        self.lengths("tokens", &found.lengths);
        self.histogram(&found.lengths);
        if let [_, _, ..] = &found.parts[..] {
            for part in &found.parts {
                self.lengths(&format!("  {}", part.name), &part.lengths);
            }
        }
        if let Some(learnt) = found.learnt {
            let all: usize = found.parts.iter().map(|part| part.lengths.total).sum();
            let percent = 100.0 * learnt as f64 / all.max(1) as f64;
            self.line("learnt", format_args!("{learnt} tokens, {percent:.1} %"));
        }
        let (setting, limit) = (&found.limit.setting, found.limit.tokens);
        self.line("limit", format_args!("{setting} = {limit}; {} tokens are cut off", found.lost));
        for (note, places) in &found.notes {
            self.line("noted", format_args!("{} {}", places.len(), note.said(found.settings)));
            self.list(places.iter());
        }
        if !found.failed.is_empty() {
            self.line("not tokenised", found.failed.len());
            self.list(found.failed.iter().map(|flaw| format!("{}: {}", flaw.place, flaw.problem)));
        }
        if let Some(judged) = &found.judgements {
            let (good, bad) = (judged.desirable, judged.undesirable);
            self.line("judgements", format_args!("{good} desirable, {bad} undesirable"));
            let (one_sided, batches) = (judged.one_sided, judged.batches);
            self.more(format_args!("{one_sided} of {batches} batches have one of the two kinds alone"));
        }
        if !found.contradictions.is_empty() {
            self.line("contradictions", found.contradictions.len());
            self.list(found.contradictions.iter().map(|[first, second]| {
                format!("{first}, {second}: the same completions, judged the other way round")
            }));
        }
    }

    pub(super) fn rendered(&mut self, samples: &[RenderedExample], marks: Marks) {
        for sample in samples {
            let label = sample.label.as_ref().map_or_else(String::new, |label| format!(" {label};"));
            let learnt = sample.parts.iter().any(|part| part.learnt);
            let seen = if learnt { format!(" what is learnt {}", how(marks)) } else { String::new() };
            let said = format!("{}:{label}{seen}", sample.place);
            self.line("sample", said.trim_end_matches([':', ';']));
            for part in &sample.parts {
                let name = if part.name.is_empty() { String::new() } else { format!("{}, ", part.name) };
                self.quote(&format!("{name}{} tokens", part.tokens));
                self.quote(&format!("  {}", piece(&part.text, part.learnt, marks).replace('\n', "\n  ")));
            }
        }
    }
}
