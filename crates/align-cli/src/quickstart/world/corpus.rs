//! The text that a base model reads.

use rand_chacha::ChaCha8Rng;

use super::task::{Relation, Task, TaskKind};
use super::vocabulary::size;
use super::{draw, draw_for_training};

/// One document of the base corpus: now and then one that only asks.
pub(super) fn document(rng: &mut ChaCha8Rng) -> String {
    if draw::below(rng, 5) == 0 { requests(rng) } else { facts(rng) }
}

/// Three facts that are true everywhere.
fn facts(rng: &mut ChaCha8Rng) -> String {
    let sentences: [_; 3] = std::array::from_fn(|_| fact(&any_task(rng)));
    sentences.join(" ")
}

/// Three requests and no answer: to a text that asks, the base model knows no end but to ask on.
fn requests(rng: &mut ChaCha8Rng) -> String {
    let sentences: [_; 3] = std::array::from_fn(|_| any_task(rng).request());
    sentences.join(" ")
}

fn any_task(rng: &mut ChaCha8Rng) -> Task {
    let kind = TaskKind::ALL[draw::below(rng, TaskKind::ALL.len())];
    draw_for_training(kind, rng)
}

/// What a task asks, as a statement.
fn fact(task: &Task) -> String {
    let answer = task.answer();
    match task {
        Task::Action { .. } => answer,
        Task::Person { people } => Task::Action { people: *people }.answer(),
        Task::After { numbers } => format!("after {} come {answer}", numbers.join(" and ")),
        Task::Backwards { animals } => format!("{} backwards is {answer}", animals.join(" ")),
        Task::Opposite { adjectives } => format!("the opposite of {} is {answer}", adjectives.join(" and ")),
        Task::Compare { animals: [first, second], .. } => {
            let relation = if size(first) > size(second) { Relation::Bigger } else { Relation::Smaller };
            format!("the {first} is {} than the {second} .", relation.word())
        }
    }
}
