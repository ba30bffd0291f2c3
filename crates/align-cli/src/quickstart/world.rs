//! A world small enough to learn in a minute: people who do things, animals, numbers and opposites.
//!
//! It has what every stage of alignment needs: plain text for a base model, requests with answers that can be
//! checked, and words for manners and refusals. Everything in it is drawn from a seed, and what a held-out request
//! asks about occurs nowhere in the training text: not in a conversation, not in the base corpus, not in passing.

mod corpus;
mod draw;
mod manners;
mod task;
mod tokenizer;
mod vocabulary;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

pub(crate) use manners::{Manner, Preference, Virtue, worth};
pub(crate) use task::{Task, TaskKind};
pub(crate) use tokenizer::{LONGEST_SEQUENCE, tokenizer_files};

/// One in so many combinations is held out.
const HELD_OUT_SHARE: u64 = 6;

/// The world and the seed that its texts are drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    seed: u64,
}

/// What the random numbers are for: each purpose has a stream of its own.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    BaseCorpus,
    Conversations,
    HeldOut,
    Preferences,
    HeldOutPreferences,
}

impl World {
    /// The world with this seed. The words, the facts and what is held out are the same for every seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Plain text for a base model: facts, and requests that nobody answers.
    ///
    /// A longer corpus begins with the shorter one.
    pub(crate) fn base_corpus(self, documents: usize) -> Vec<String> {
        let mut rng = self.rng(Purpose::BaseCorpus);
        (0..documents).map(|_| corpus::document(&mut rng)).collect()
    }

    /// Tasks to make conversations of, the kinds in turn; none of them is held out.
    pub(crate) fn training_tasks(self, count: usize) -> Vec<Task> {
        let mut rng = self.rng(Purpose::Conversations);
        TaskKind::ALL.into_iter().cycle().take(count).map(|kind| draw_for_training(kind, &mut rng)).collect()
    }

    /// Tasks about combinations that training never sees, the kinds in turn.
    pub(crate) fn held_out_tasks(self, count: usize) -> Vec<Task> {
        let mut rng = self.rng(Purpose::HeldOut);
        let mut draw = |kind| draw_until(kind, &mut rng, is_held_out);
        TaskKind::ALL.into_iter().cycle().take(count).map(&mut draw).collect()
    }

    /// Preferences between answers to tasks that are not held out.
    pub(crate) fn preferences(self, count: usize) -> Vec<Preference> {
        let mut rng = self.rng(Purpose::Preferences);
        let kinds = TaskKind::ALL.into_iter().cycle().take(count);
        kinds.map(|kind| Preference::draw(draw_for_training(kind, &mut rng), &mut rng)).collect()
    }

    /// A preference between answers to each of these tasks.
    pub(crate) fn preferences_about(self, tasks: &[Task]) -> Vec<Preference> {
        let mut rng = self.rng(Purpose::HeldOutPreferences);
        tasks.iter().map(|task| Preference::draw(task.clone(), &mut rng)).collect()
    }

    fn rng(self, purpose: Purpose) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(purpose as u64);
        rng
    }
}

/// A random task that is not held out.
fn draw_for_training(kind: TaskKind, rng: &mut ChaCha8Rng) -> Task {
    draw_until(kind, rng, |task| !is_held_out(task))
}

fn draw_until(kind: TaskKind, rng: &mut ChaCha8Rng, wanted: impl Fn(&Task) -> bool) -> Task {
    loop {
        let task = kind.draw(rng);
        if wanted(&task) {
            return task;
        }
    }
}

/// Whether a task is kept out of all training text: a fixed hash of its combination decides.
fn is_held_out(task: &Task) -> bool {
    task.can_be_inferred() && hash(&task.combination()).is_multiple_of(HELD_OUT_SHARE)
}

/// 64-bit FNV-1a, and a last round of mixing because its low bits are not random enough.
fn hash(words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|word| word.bytes().chain([b' ']));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests;
