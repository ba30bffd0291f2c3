use std::collections::BTreeSet;

use super::task::Relation;
use super::vocabulary::{ACTIONS, ADJECTIVES, ANIMALS, NAMES, NUMBERS, tokens};
use super::*;

const WORLD: World = World { seed: 7 };

/// Everything that training may read, as words.
fn training_texts() -> Vec<Vec<String>> {
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
    let conversations =
        WORLD.training_tasks(6_000).into_iter().map(|task| format!("{} {}", task.request(), task.answer()));
    WORLD.base_corpus(6_000).into_iter().chain(conversations).map(words).collect()
}

fn people(mut pair: [&str; 2]) -> Vec<&str> {
    pair.sort_unstable();
    vec!["people", pair[0], pair[1]]
}

fn doer(action: &str) -> &'static str {
    NAMES[ACTIONS.iter().position(|known| *known == action).unwrap()]
}

/// The combinations that a text mentions, found in its words and not in how it was made.
fn mentioned(words: &[String]) -> Vec<Vec<&str>> {
    let known = |list: &[&str], word: &str| list.contains(&word);
    let mut found = Vec::new();
    for start in 0..words.len() {
        let window: Vec<&str> = words[start..].iter().take(6).map(String::as_str).collect();
        match window[..] {
            [a, _, "and", b, _, "." | "?", ..] if known(&NAMES, a) && known(&NAMES, b) => {
                found.push(people([a, b]));
            }
            ["do", a, "and", b, "do", ..] => found.push(people([a, b])),
            ["who", a, "and", "who", b, "?", ..] => found.push(people([a, b].map(doer))),
            ["after", a, "and", b, ..] => found.push(vec!["after", a, b]),
            [a, b, c, "backwards", ..] => found.push(vec!["backwards", a, b, c]),
            ["opposite", "of", a, "and", b, ..] => found.push(vec!["opposite", a, b]),
            [a, "is", "bigger" | "smaller", "than", "the", b, ..] | [",", "the", a, "or", "the", b, ..]
                if known(&ANIMALS, a) && known(&ANIMALS, b) =>
            {
                let mut pair = [a, b];
                pair.sort_by_key(|animal| vocabulary::size(animal));
                found.push(vec!["compare", pair[0], pair[1]]);
            }
            _ => {}
        }
    }
    found
}

#[test]
fn what_is_held_out_is_nowhere_in_the_training_text() {
    let texts = training_texts();
    let seen: BTreeSet<_> = texts.iter().flat_map(|words| mentioned(words)).collect();
    let held_out = WORLD.held_out_tasks(3_000);
    let combinations: BTreeSet<_> = held_out.iter().map(Task::combination).collect();

    assert!(seen.len() > 1_000, "only {} combinations were recognised", seen.len());
    assert!(combinations.len() > 200, "only {} combinations are held out", combinations.len());
    assert_eq!(seen.intersection(&combinations).collect::<Vec<_>>(), Vec::<&Vec<&str>>::new());
}

#[test]
fn held_out_requests_are_recognised_by_the_same_search() {
    for task in WORLD.held_out_tasks(600) {
        let words: Vec<_> =
            format!("{} {}", task.request(), task.answer()).split(' ').map(str::to_owned).collect();
        assert!(mentioned(&words).contains(&task.combination()), "{}", words.join(" "));
    }
}

#[test]
fn every_kind_has_held_out_combinations() {
    for kind in TaskKind::ALL {
        let mut rng = WORLD.rng(Purpose::HeldOut);
        let drawn: Vec<_> = (0..4_000).map(|_| kind.draw(&mut rng)).collect();
        let all: BTreeSet<_> = drawn.iter().map(Task::combination).collect();
        let held_out: BTreeSet<_> =
            drawn.iter().filter(|task| is_held_out(task)).map(Task::combination).collect();
        let (held_out, all) = (held_out.len(), all.len());
        assert!(held_out >= 8 && held_out * 4 < all, "{kind:?}: {held_out} of {all}");
    }
}

#[test]
fn the_seed_alone_decides() {
    assert_eq!(WORLD.base_corpus(50), World::new(7).base_corpus(50));
    assert_eq!(WORLD.training_tasks(50), World::new(7).training_tasks(50));
    assert_ne!(WORLD.base_corpus(50), World::new(8).base_corpus(50));
    assert_eq!(WORLD.base_corpus(60)[..50], WORLD.base_corpus(50));
}

#[test]
fn every_text_is_short_and_of_known_words() {
    let vocabulary: BTreeSet<_> = tokens().collect();
    let chats = WORLD.held_out_tasks(600).into_iter().map(|task| {
        let chat = format!("<bos> <user> {} <assistant> {} <eos>", task.request(), task.answer());
        chat.split(' ').map(str::to_owned).collect()
    });
    for words in training_texts().into_iter().chain(chats) {
        assert!(words.len() + 4 <= LONGEST_SEQUENCE, "{}", words.join(" "));
        assert!(words.iter().all(|word| vocabulary.contains(word.as_str())), "{}", words.join(" "));
    }
}

#[test]
fn right_answers_are_right_and_others_wrong() {
    let tasks = WORLD.training_tasks(300);
    for task in &tasks {
        let answer = task.answer();
        assert!(task.is_correct(&answer), "{} {answer}", task.request());
        assert!(!task.is_correct(""), "{answer}");
        assert!(!task.is_correct(answer.trim_end_matches(" .")), "{answer}");
        assert!(!task.is_correct(&format!("{answer} {answer}")), "{answer}");
        assert!(!task.is_correct(&task.request()), "{}", task.request());
    }
    let wrong = tasks
        .iter()
        .zip(&tasks[6..])
        .filter(|(task, next)| task.combination() != next.combination() && task.is_correct(&next.answer()));
    assert!(wrong.count() < 60);
}

#[test]
fn answers_are_the_expected_sentences() {
    let cases = [
        (Task::Action { people: ["tom", "eva"] }, "what do tom and eva do ?", "tom sings and eva reads ."),
        (Task::Person { people: ["eva", "tom"] }, "who reads and who sings ?", "eva and tom ."),
        (Task::After { numbers: ["nine", "two"] }, "what comes after nine and two ?", "ten and three ."),
        (Task::Backwards { animals: ["cat", "dog", "cow"] }, "say cat dog cow backwards .", "cow dog cat ."),
        (
            Task::Opposite { adjectives: ["hot", "small"] },
            "what is the opposite of hot and small ?",
            "cold and big .",
        ),
        (
            Task::Compare { relation: Relation::Smaller, animals: ["cow", "bee"] },
            "which is smaller , the cow or the bee ?",
            "the bee is smaller .",
        ),
    ];
    for (task, request, answer) in cases {
        assert_eq!((task.request().as_str(), task.answer().as_str()), (request, answer));
    }
}

#[test]
fn manners_do_not_change_what_is_right() {
    let task = Task::Opposite { adjectives: ["hot", "big"] };
    assert!(task.is_correct("sure , it is cold and small ."));
    assert!(!task.is_correct("small and cold ."));
    assert!(!task.is_correct("hot and big and cold and small ."));
}

#[test]
fn the_tokenizer_knows_every_word() {
    let files = tokenizer_files();
    let tokenizer: serde_json::Value = serde_json::from_str(&files[0].1).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    assert_eq!(vocabulary.len(), tokens().count());
    assert!(ADJECTIVES.iter().chain(&NUMBERS).all(|word| vocabulary.contains_key(*word)));
    let config: serde_json::Value = serde_json::from_str(&files[1].1).unwrap();
    for key in ["bos_token", "eos_token", "pad_token", "unk_token"] {
        assert!(vocabulary.contains_key(config[key].as_str().unwrap()), "{key}");
    }
}
