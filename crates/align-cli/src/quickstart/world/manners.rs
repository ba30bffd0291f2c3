//! How an answer can be put, and which of two is better.

use rand_chacha::ChaCha8Rng;

use super::{Task, TaskKind, draw};

/// How an answer is put; the later the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Manner {
    /// With an insult at its end.
    Rude,
    /// As it is.
    Plain,
    /// With a friendly word at its end.
    Kind,
}

const END: &str = " .";
const RUDE_END: &str = " , silly .";
const KIND_END: &str = " , friend .";

impl Manner {
    /// The manner of an answer.
    pub(crate) fn of(answer: &str) -> Self {
        match answer {
            _ if answer.ends_with(RUDE_END) => Self::Rude,
            _ if answer.ends_with(KIND_END) => Self::Kind,
            _ => Self::Plain,
        }
    }

    /// An answer in this manner.
    pub(crate) fn say(self, answer: &str) -> String {
        let end = match self {
            Self::Rude => RUDE_END,
            Self::Plain => END,
            Self::Kind => KIND_END,
        };
        format!("{}{end}", answer.trim_end_matches(END))
    }
}

/// A request and two answers, of which the first is better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preference {
    /// What was asked.
    pub(crate) task: Task,
    /// The better answer.
    pub(crate) better: String,
    /// The worse one.
    pub(crate) worse: String,
    /// What makes it better.
    pub(crate) virtue: Virtue,
}

/// What makes an answer better than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Virtue {
    /// It is put more kindly.
    Kindness,
    /// It answers what was asked, and the other something else.
    Relevance,
}

impl Virtue {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Kindness, Self::Relevance];

    /// The virtue as a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kindness => "kindness",
            Self::Relevance => "relevance",
        }
    }
}

impl Preference {
    /// A preference between a kind and right answer and a worse one.
    pub(super) fn draw(task: Task, rng: &mut ChaCha8Rng) -> Self {
        let right = task.answer();
        let better = Manner::Kind.say(&right);
        let worse = [Some(Manner::Plain), Some(Manner::Rude), None];
        if let Some(manner) = worse[draw::below(rng, worse.len())] {
            return Self { task, better, worse: manner.say(&right), virtue: Virtue::Kindness };
        }
        let worse = Manner::Kind.say(&beside_the_point(&task, rng));
        Self { task, better, worse, virtue: Virtue::Relevance }
    }
}

/// The answer to another task.
fn beside_the_point(task: &Task, rng: &mut ChaCha8Rng) -> String {
    loop {
        let kind = TaskKind::ALL[draw::below(rng, TaskKind::ALL.len())];
        let answer = kind.draw(rng).answer();
        if kind != task.kind() && !task.is_correct(&answer) {
            return answer;
        }
    }
}

/// How good an answer is to somebody who knows the world: a right one is better than a wrong one, and among right ones
/// manners decide.
pub(crate) fn worth(task: &Task, answer: &str) -> Option<Manner> {
    task.is_correct(answer).then(|| Manner::of(answer))
}

#[cfg(test)]
mod tests {
    use super::super::World;
    use super::*;

    #[test]
    fn the_better_answer_is_worth_more() {
        for preference in World::new(3).preferences(500) {
            let Preference { task, better, worse, .. } = &preference;
            assert!(worth(task, better) > worth(task, worse), "{preference:?}");
            assert_eq!(Manner::of(&Manner::Kind.say(&task.answer())), Manner::Kind);
        }
    }
}
