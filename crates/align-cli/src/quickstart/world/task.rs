//! Requests that have a right answer.

use rand_chacha::ChaCha8Rng;

use super::draw;
use super::vocabulary::{ACTIONS, ADJECTIVES, ANIMALS, NAMES, NUMBERS, action, opposite, size, successor};

/// A request to the assistant, together with what makes an answer right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// What do two people do?
    Action {
        /// The people.
        people: [&'static str; 2],
    },
    /// Who does two things?
    Person {
        /// The people who do them.
        people: [&'static str; 2],
    },
    /// Name the numbers that come after two numbers.
    After {
        /// The numbers.
        numbers: [&'static str; 2],
    },
    /// Say three words in reverse.
    Backwards {
        /// The words.
        animals: [&'static str; 3],
    },
    /// Name the opposites of two adjectives.
    Opposite {
        /// The adjectives.
        adjectives: [&'static str; 2],
    },
    /// Which of two animals is bigger, or smaller?
    Compare {
        /// What is asked.
        relation: Relation,
        /// The animals, as the request names them.
        animals: [&'static str; 2],
    },
}

/// How sizes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Bigger than.
    Bigger,
    /// Smaller than.
    Smaller,
}

/// The kinds of [`Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TaskKind {
    /// [`Task::Action`]
    Action,
    /// [`Task::Person`]
    Person,
    /// [`Task::After`]
    After,
    /// [`Task::Backwards`]
    Backwards,
    /// [`Task::Opposite`]
    Opposite,
    /// [`Task::Compare`]
    Compare,
}

impl TaskKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 6] =
        [Self::Action, Self::Person, Self::After, Self::Backwards, Self::Opposite, Self::Compare];

    /// The kind as a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Person => "person",
            Self::After => "after",
            Self::Backwards => "backwards",
            Self::Opposite => "opposite",
            Self::Compare => "compare",
        }
    }

    /// What is asked, for people.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Action => "what do two people do?",
            Self::Person => "who does two things?",
            Self::After => "which numbers come next?",
            Self::Backwards => "say three words backwards",
            Self::Opposite => "what are the opposites?",
            Self::Compare => "which animal is bigger?",
        }
    }

    /// A random task of this kind.
    pub(crate) fn draw(self, rng: &mut ChaCha8Rng) -> Task {
        match self {
            Self::Action => Task::Action { people: draw::several(rng, &NAMES) },
            Self::Person => Task::Person { people: draw::several(rng, &NAMES) },
            Self::After => Task::After { numbers: draw::several(rng, &NUMBERS[..NUMBERS.len() - 1]) },
            Self::Backwards => Task::Backwards { animals: draw::several(rng, &ANIMALS) },
            Self::Opposite => Task::Opposite { adjectives: draw_adjectives(rng) },
            Self::Compare => {
                let relation = [Relation::Bigger, Relation::Smaller][draw::below(rng, 2)];
                Task::Compare { relation, animals: draw::several(rng, &ANIMALS) }
            }
        }
    }
}

impl Task {
    /// Of which kind it is.
    pub(crate) fn kind(&self) -> TaskKind {
        match self {
            Self::Action { .. } => TaskKind::Action,
            Self::Person { .. } => TaskKind::Person,
            Self::After { .. } => TaskKind::After,
            Self::Backwards { .. } => TaskKind::Backwards,
            Self::Opposite { .. } => TaskKind::Opposite,
            Self::Compare { .. } => TaskKind::Compare,
        }
    }

    /// What the user says.
    pub(crate) fn request(&self) -> String {
        match self {
            Self::Action { people } => format!("what do {} do ?", people.join(" and ")),
            Self::Person { people: [first, second] } => {
                format!("who {} and who {} ?", action(first), action(second))
            }
            Self::After { numbers } => format!("what comes after {} ?", numbers.join(" and ")),
            Self::Backwards { animals } => format!("say {} backwards .", animals.join(" ")),
            Self::Opposite { adjectives } => {
                format!("what is the opposite of {} ?", adjectives.join(" and "))
            }
            Self::Compare { relation, animals: [first, second] } => {
                format!("which is {} , the {first} or the {second} ?", relation.word())
            }
        }
    }

    /// What a good assistant says.
    pub(crate) fn answer(&self) -> String {
        match self {
            Self::Action { people } => {
                let sentences = people.map(|name| format!("{name} {}", action(name)));
                format!("{} .", sentences.join(" and "))
            }
            Self::Backwards { .. } => format!("{} .", self.key().1.join(" ")),
            Self::Person { .. } | Self::After { .. } | Self::Opposite { .. } => {
                format!("{} .", self.key().1.join(" and "))
            }
            Self::Compare { relation, .. } => {
                format!("the {} is {} .", self.key().1[0], relation.word())
            }
        }
    }

    /// Whether `response` is one sentence that gives the right answer, in whatever words it is wrapped.
    ///
    /// What counts are the words of the kind that was asked for: exactly the right ones, in the right order.
    pub(crate) fn is_correct(&self, response: &str) -> bool {
        let words: Vec<_> = response.split_whitespace().collect();
        let (candidates, key) = self.key();
        let named = words.iter().filter(|word| candidates.contains(word));
        let sentences = words.iter().filter(|word| matches!(**word, "." | "?")).count();
        words.last() == Some(&".") && sentences == 1 && named.eq(&key)
    }

    /// Which people, which numbers, which words: what must be new in a held-out request.
    ///
    /// Whatever is asked about the same two people is one combination, and so are comparisons of the same two
    /// animals: who knows one of the answers knows the others.
    pub(crate) fn combination(&self) -> Vec<&'static str> {
        match self {
            Self::Action { people } | Self::Person { people } => {
                let mut pair = *people;
                pair.sort_unstable();
                ["people"].into_iter().chain(pair).collect()
            }
            Self::After { numbers } => ["after"].iter().chain(numbers).copied().collect(),
            Self::Backwards { animals } => ["backwards"].iter().chain(animals).copied().collect(),
            Self::Opposite { adjectives } => ["opposite"].iter().chain(adjectives).copied().collect(),
            Self::Compare { animals, .. } => {
                let mut pair = *animals;
                pair.sort_by_key(|animal| size(animal));
                ["compare"].into_iter().chain(pair).collect()
            }
        }
    }

    /// Whether somebody can know the answer who never met this combination.
    ///
    /// Nothing but a direct comparison tells two neighbours in size apart: all others compare to both alike.
    pub(crate) fn can_be_inferred(&self) -> bool {
        match self {
            Self::Compare { animals: [first, second], .. } => size(first).abs_diff(size(second)) > 1,
            _ => true,
        }
    }

    /// The words among which the answer is found, and those that are right.
    fn key(&self) -> (&'static [&'static str], Vec<&'static str>) {
        match self {
            Self::Action { people } => (&ACTIONS, people.iter().map(|name| action(name)).collect()),
            Self::Person { people } => (&NAMES, people.to_vec()),
            Self::After { numbers } => (&NUMBERS, numbers.iter().map(|word| successor(word)).collect()),
            Self::Backwards { animals } => (&ANIMALS, animals.iter().rev().copied().collect()),
            Self::Opposite { adjectives } => {
                (&ADJECTIVES, adjectives.iter().map(|word| opposite(word)).collect())
            }
            Self::Compare { relation, animals } => {
                let [first, second] = *animals;
                let first_is_it = match relation {
                    Relation::Bigger => size(first) > size(second),
                    Relation::Smaller => size(first) < size(second),
                };
                (&ANIMALS, vec![if first_is_it { first } else { second }])
            }
        }
    }
}

impl Relation {
    /// The relation as a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bigger => "bigger",
            Self::Smaller => "smaller",
        }
    }
}

fn draw_adjectives(rng: &mut ChaCha8Rng) -> [&'static str; 2] {
    loop {
        let pair: [&'static str; 2] = draw::several(rng, &ADJECTIVES);
        if opposite(pair[0]) != pair[1] {
            return pair;
        }
    }
}
