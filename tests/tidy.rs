//! Keeps the house rules of `CONTRIBUTING.md` and the arrows of `ARCHITECTURE.md` by reading the repository's own files.
//!
//! A rule is a function from text to violations, each with a test of its own on a small bad example.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule that cannot be checked must fail its test")]

mod tidy_rules;

use tidy_rules::{Tree, documents, imports, manifests, size, words};

#[track_caller]
fn assert_tidy(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} places to mend:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn files_and_functions_stay_small() {
    assert_tidy(Tree::read().rust.iter().flat_map(size::too_large).collect());
}

#[test]
fn crates_depend_only_downwards() {
    assert_tidy(Tree::read().manifests.iter().flat_map(manifests::forbidden_arrows).collect());
}

#[test]
fn every_crate_forwards_every_backend() {
    assert_tidy(Tree::read().manifests.iter().flat_map(manifests::backend_features).collect());
}

#[test]
fn modules_of_align_model_import_only_downwards() {
    let tree = Tree::read();
    let sources: Vec<_> =
        tree.rust.iter().filter(|s| s.path.starts_with("crates/align-model/src/")).collect();
    assert!(!sources.is_empty(), "crates/align-model/src holds no source");
    assert_tidy(imports::upward_imports(&sources));
}

#[test]
fn every_loss_cites_a_source_that_is_listed() {
    let tree = Tree::read();
    let sources: Vec<_> = tree.in_crates().collect();
    assert_tidy(documents::uncited_losses(&sources, &tree.papers));
}

#[test]
fn every_listed_function_exists() {
    let tree = Tree::read();
    let sources: Vec<_> = tree.in_crates().collect();
    assert_tidy(documents::missing_functions(&sources, &tree.papers));
}

#[test]
fn every_public_tensor_has_its_shape_documented() {
    assert_tidy(Tree::read().in_crates().flat_map(documents::undocumented_shapes).collect());
}

#[test]
fn libraries_neither_panic_nor_print_nor_pick_a_device() {
    assert_tidy(Tree::read().in_libraries().flat_map(words::forbidden_calls).collect());
}

#[test]
fn nothing_is_left_unfinished() {
    assert_tidy(Tree::read().texts.iter().flat_map(|(path, text)| words::unfinished(path, text)).collect());
}

#[test]
fn files_are_named_after_what_they_are_about() {
    assert_tidy(Tree::read().texts.iter().filter_map(|(path, _)| words::vague_name(path)).collect());
}
