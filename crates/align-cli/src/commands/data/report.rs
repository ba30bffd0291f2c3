//! An inspection for a person to read.

mod examples;
mod overlap;
mod samples;

use std::fmt::{Display, Write as _};

use align_model::inspect::{
    DuplicateGroup, Inspection, LengthStatistics, Place, Problem, ProblemKind, TokenFindings,
};

use super::examples::ExampleFindings;

/// How what is learnt is told from what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// On a terminal.
    Colour,
    /// Where text alone has to do.
    Brackets,
}

/// Places that are listed of each finding; all of them are in the JSON output.
const LISTED: usize = 5;
/// Where values begin.
const INDENT: &str = "                    ";
const BAR: usize = 40;

/// The whole report.
pub(super) fn text(
    inspection: &Inspection,
    examples: Option<&ExampleFindings>,
    problems: &[Problem],
    marks: Marks,
) -> String {
    let mut report = Report::default();
    report.rows(inspection);
    report.lengths("characters", &inspection.characters);
    report.lengths("words", &inspection.words);
    if let Some(tokens) = &inspection.tokens {
        report.tokens(tokens);
    }
    if let Some(examples) = examples {
        report.examples(examples);
    }
    report.duplicates("equal", &inspection.exact_duplicates);
    report.duplicates("nearly equal", &inspection.near_duplicates);
    if let Some(overlap) = &inspection.overlap {
        report.overlap(overlap);
    }
    if let Some(tokens) = &inspection.tokens {
        report.samples(&tokens.samples, marks);
    }
    if let Some(examples) = examples {
        report.rendered(&examples.samples, marks);
    }
    let verdict = if problems.is_empty() { "none found".to_owned() } else { summary(problems) };
    report.line("problems", verdict);
    if inspection.tokens.is_none() && examples.is_none() {
        report
            .more("without a model only texts were looked at: --model or --config also shows what is learnt");
    }
    report.text
}

/// The problems, each with its number.
pub(super) fn summary(problems: &[Problem]) -> String {
    let each = problems.iter().map(|problem| format!("{} {}", problem.records, named(problem.kind)));
    each.collect::<Vec<_>>().join(", ")
}

fn named(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Refused => "rows that cannot be trained on",
        ProblemKind::OddConversations => "odd conversations",
        ProblemKind::NotTokenised => "records that cannot be tokenised",
        ProblemKind::WithoutLoss => "samples without a loss",
        ProblemKind::UnevenBoundaries => "prompts that end inside a token",
        ProblemKind::IdenticalPairs => "pairs of equal completions",
        ProblemKind::EmptyCompletions => "empty completions",
        ProblemKind::LeftOut => "records left out for their lengths",
        ProblemKind::Contradictions => "contradictions",
        ProblemKind::OneSidedBatches => "batches judged alike",
        ProblemKind::ExactDuplicates => "repeated records",
        ProblemKind::NearDuplicates => "nearly repeated records",
        ProblemKind::Contamination => "evaluation records in the training data",
        _ => "others",
    }
}

/// Lines with a name in front and values behind.
#[derive(Debug, Default)]
struct Report {
    text: String,
}

impl Report {
    fn line(&mut self, name: &str, value: impl Display) {
        let width = INDENT.len();
        let _ = writeln!(self.text, "{name:width$}{value}");
    }

    fn more(&mut self, value: impl Display) {
        self.line("", value);
    }

    /// The first few of many.
    fn list<T: Display>(&mut self, all: impl ExactSizeIterator<Item = T>) {
        let rest = all.len().saturating_sub(LISTED);
        for one in all.take(LISTED) {
            self.more(format_args!("  {one}"));
        }
        if rest > 0 {
            self.more(format_args!("  and {rest} more"));
        }
    }

    fn rows(&mut self, inspection: &Inspection) {
        self.line("records", inspection.records);
        for (layout, count) in &inspection.layouts {
            self.more(format_args!("  {count} × {layout}"));
        }
        let unused = inspection.unused_columns.iter().map(|(column, rows)| format!("{column} ({rows})"));
        if unused.len() > 0 {
            self.line("unused columns", unused.collect::<Vec<_>>().join(", "));
        }
        if !inspection.refused.is_empty() {
            self.line("not trainable", inspection.refused.len());
            self.list(inspection.refused.iter().map(|flaw| format!("{}: {}", flaw.place, flaw.problem)));
        }
        if !inspection.conversations.is_empty() {
            self.line("odd conversations", inspection.conversations.len());
            self.list(inspection.conversations.iter().map(|odd| {
                let oddities = odd.oddities.iter().map(ToString::to_string).collect::<Vec<_>>();
                format!("{}: {}", odd.place, oddities.join("; "))
            }));
        }
    }

    fn lengths(&mut self, name: &str, lengths: &LengthStatistics) {
        let LengthStatistics { total, minimum, mean, maximum, .. } = lengths;
        self.line(name, format_args!("{total} in all; {minimum} to {maximum} a record, mean {mean:.1}"));
        let shares = lengths.percentiles.iter().map(|p| format!("{} % ≤ {}", p.percent, p.length));
        self.more(shares.collect::<Vec<_>>().join(" · "));
    }

    fn histogram(&mut self, lengths: &LengthStatistics) {
        let most = lengths.histogram.iter().map(|bin| bin.count).max().unwrap_or(0).max(1);
        let width = lengths.maximum.to_string().len();
        for bin in &lengths.histogram {
            let bar = "█".repeat((bin.count * BAR).div_ceil(most));
            self.more(format_args!("{:>width$}–{:<width$} {bar} {}", bin.from, bin.to, bin.count));
        }
    }

    fn tokens(&mut self, tokens: &TokenFindings) {
        self.lengths("tokens", &tokens.lengths);
        self.histogram(&tokens.lengths);
        let percent = 100.0 * tokens.target_share;
        self.line("learnt", format_args!("{} tokens, {percent:.1} %", tokens.targets));
        let (cut, limit) = (tokens.truncated, tokens.max_length);
        self.line(
            "cut off",
            format_args!(
                "{} samples are longer than {limit} tokens; {} tokens are lost, {} of them would be learnt",
                cut.samples, cut.tokens, cut.targets
            ),
        );
        self.places("without a loss", &tokens.without_loss);
        self.places("uneven prompts", &tokens.uneven_boundaries);
        if !tokens.failed.is_empty() {
            self.line("not tokenised", tokens.failed.len());
            self.list(tokens.failed.iter().map(|flaw| format!("{}: {}", flaw.place, flaw.problem)));
        }
        self.line("packing", format_args!("into rows of {limit} tokens"));
        for one in &tokens.packing {
            let name = one.packing.map_or("a sample a row", packing_name);
            let (rows, filled, lost) = (one.rows, 100.0 * one.filled, one.lost);
            self.more(format_args!("  {name:<14} {rows} rows, {filled:.1} % filled, {lost} tokens lost"));
        }
    }

    fn places(&mut self, name: &str, places: &[Place]) {
        if !places.is_empty() {
            self.line(name, places.len());
            self.list(places.iter());
        }
    }

    fn duplicates(&mut self, name: &str, groups: &[DuplicateGroup]) {
        if groups.is_empty() {
            return;
        }
        let repeated: usize = groups.iter().map(|group| group.places.len() - 1).sum();
        self.line(name, format_args!("{} groups, {repeated} records too many", groups.len()));
        self.list(groups.iter().map(|group| {
            let mut places: Vec<String> = group.places.iter().take(LISTED).map(ToString::to_string).collect();
            if group.places.len() > LISTED {
                places.push(format!("{} more", group.places.len() - LISTED));
            }
            format!("{} (similarity {:.2})", places.join(", "), group.similarity)
        }));
    }
}

/// As in a run file.
fn packing_name(packing: align_model::sft::Packing) -> &'static str {
    match packing {
        align_model::sft::Packing::BestFitDecreasing => "bfd",
        align_model::sft::Packing::BestFitDecreasingSplit => "bfd_split",
        align_model::sft::Packing::Wrapped => "wrapped",
    }
}
