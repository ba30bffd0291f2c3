//! What the methods that learn from preferences have in common.

use std::path::Path;

use align_dpo::{CacheKey, Reference, ReferenceLogProbs, ReferencePolicy};
use align_model::{
    causal_lm::TokenBatch,
    data::{Located, PreferenceRecord},
    decoder::Decoder,
    preference::{
        LeftOut, OnTooLong, PreferenceDataError, PreferenceExample, PreferenceOutcome, PreferenceTokenizer,
        UnpairedExample,
    },
    train::Report,
};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Around, Example, Learnt, Measured, Note, Part, Texts, Tokenized};

/// Two tokenisers, of which the first cuts nothing: it tells how long records are.
#[derive(Debug)]
pub(super) struct Tokenizers<'a> {
    whole: PreferenceTokenizer<'a>,
    limited: PreferenceTokenizer<'a>,
}

impl<'a> Tokenizers<'a> {
    pub(super) fn new(texts: Texts<'a>, max_length: usize, on_too_long: OnTooLong) -> Self {
        let Texts { tokenizer, templates, now, slices, .. } = texts;
        let (now, slices) = (Some(now), slices.to_vec());
        let limited = PreferenceTokenizer {
            tokenizer,
            templates,
            max_length,
            on_too_long,
            now,
            slices: slices.clone(),
        };
        let whole =
            PreferenceTokenizer { tokenizer, templates, max_length: usize::MAX, on_too_long, now, slices };
        Self { whole, limited }
    }

    /// Makes an example of a pair.
    pub(super) fn pair(&self, located: &Located<PreferenceRecord>) -> Result<Tokenized<PreferenceExample>> {
        self.tokenized(|tokenizer| tokenizer.pair(located))
    }

    /// Makes an example by a function of a tokeniser.
    pub(super) fn tokenized<E: Example>(
        &self,
        example: impl Fn(&PreferenceTokenizer<'a>) -> Result<PreferenceOutcome<E>, PreferenceDataError>,
    ) -> Result<Tokenized<E>> {
        let mut outcome = example(&self.whole).context("cannot prepare the data")?;
        let lengths = outcome.example.as_ref().map_or_else(|_| Vec::new(), lengths);
        if lengths.iter().any(|length| *length > self.limited.max_length) {
            outcome = example(&self.limited).context("cannot prepare the data")?;
        }
        let PreferenceOutcome { example, is_truncated, is_uneven } = outcome;
        let mut notes = Vec::new();
        notes.extend(is_truncated.then_some(Note::Truncated));
        notes.extend(is_uneven.then_some(Note::UnevenBoundary));
        notes.extend(example.as_ref().err().map(|why| match why {
            LeftOut::Identical => Note::IdenticalPair,
            LeftOut::Empty => Note::EmptyCompletion,
            LeftOut::TooLong => Note::TooLong,
            LeftOut::NoGold => Note::NoGold,
            LeftOut::NothingLeft => Note::NothingLeft,
        }));
        Ok(Tokenized { examples: example.into_iter().collect(), lengths, notes })
    }
}

/// A record in the place of another that it is a part of.
pub(super) fn alone<R, P>(place: &Located<R>, record: P) -> Located<P> {
    Located { source: place.source, path: place.path.clone(), line: place.line, record, extra: Map::new() }
}

/// Tokens of a prompt with each of its completions.
fn lengths<E: Example>(example: &E) -> Vec<usize> {
    let lengths: Vec<usize> = example.parts().iter().map(|part| part.tokens.len()).collect();
    let [prompt, completions @ ..] = &lengths[..] else { return Vec::new() };
    completions.iter().map(|completion| prompt + completion).collect()
}

/// All tokens of an example, its prompt once.
pub(super) fn tokens<E: Example>(example: &E) -> usize {
    example.parts().iter().map(|part| part.tokens.len()).sum()
}

/// A pass over examples with their prompts computed once, and the tokens of their completions.
pub(super) fn pass<E: Example>(examples: &[&E]) -> (TokenBatch, usize) {
    let mut batch = TokenBatch::default();
    let mut targets = 0;
    for example in examples {
        let parts = example.parts();
        let [prompt, completions @ ..] = &parts[..] else { continue };
        let completions: Vec<&[u32]> = completions.iter().map(|part| part.tokens).collect();
        targets += completions.iter().map(|completion| completion.len()).sum::<usize>();
        match completions[..] {
            [one] => batch.push(&[prompt.tokens, one].concat(), 0),
            _ if prompt.tokens.is_empty() => completions.iter().for_each(|one| batch.push(one, 0)),
            _ => batch.push_sharing(prompt.tokens, &completions),
        }
    }
    (batch, targets)
}

/// What precomputed log-probabilities of a reference are kept in.
const CACHE: &str = "reference.logprobs";

/// Whether a run file has what a reference needs; `settings` is the name of the table of settings.
pub(super) fn check_reference(settings: &str, policy: Option<ReferencePolicy>, around: Around) -> Result<()> {
    match policy {
        Some(ReferencePolicy::AdapterOff {}) => ensure!(
            around.has_adapter,
            "{settings}.reference = {{ kind = \"adapter_off\" }} needs an adapter to switch off: add [adapter]"
        ),
        Some(ReferencePolicy::Precomputed {}) => ensure!(
            !around.is_streamed,
            "{settings}.reference = {{ kind = \"precomputed\" }} needs all examples at once, and data.streaming never has them: leave one out"
        ),
        _ => {}
    }
    Ok(())
}

/// The reference of a run that starts from `model`.
pub(super) fn reference(
    policy: Option<ReferencePolicy>,
    model: &Decoder,
    precomputed: impl FnOnce() -> Result<ReferenceLogProbs>,
) -> Result<Reference<Decoder>> {
    match policy {
        None => Ok(Reference::Nothing),
        Some(ReferencePolicy::AdapterOff {}) => Ok(Reference::Model(model.without_adapter())),
        Some(ReferencePolicy::Precomputed {}) => precomputed().map(Reference::Precomputed),
        Some(_) => Ok(Reference::Model(model.clone())),
    }
}

/// What was computed before, if it is of this model and decided by the same; else it is computed now and kept in
/// `directory`, if there is one.
pub(super) fn precomputed<D: Serialize + ?Sized>(
    model: &Decoder,
    directory: Option<&Path>,
    decided_by: &D,
    ask: impl FnOnce() -> ReferenceLogProbs,
) -> Result<ReferenceLogProbs> {
    let Some(directory) = directory else { return Ok(ask()) };
    let (path, key) = (directory.join(CACHE), CacheKey::new(model, decided_by)?);
    if path.exists() {
        println!("reference   read from {}", path.display());
        return Ok(ReferenceLogProbs::load(&path, &key)?);
    }
    println!("reference   computing what it says, to be kept in {}", path.display());
    let known = ask();
    known.save(&path, &key)?;
    Ok(known)
}

/// What a report of an evaluation says, but of the run itself.
pub(super) fn measured(report: &impl Report) -> Measured {
    let plain = report.metrics().into_iter().map(|(name, value)| (name.to_owned(), value));
    plain.chain(report.named_metrics()).filter(|(name, _)| name != "num_tokens").collect()
}

/// Copies of what is trained that a reference is.
pub(super) fn copies(policy: Option<ReferencePolicy>) -> usize {
    match policy {
        None | Some(ReferencePolicy::AdapterOff {} | ReferencePolicy::Precomputed {}) => 0,
        Some(ReferencePolicy::Frozen {}) => 1,
        Some(ReferencePolicy::Moving { .. } | ReferencePolicy::Averaged { .. }) => 2,
    }
}

/// The `kind` of a setting, or those of a list of settings, as a run file spells them.
pub(super) fn named(setting: &impl Serialize) -> String {
    fn kinds(value: &Value) -> Vec<String> {
        match value {
            Value::Object(table) if table.contains_key("kind") => {
                table["kind"].as_str().map(str::to_owned).into_iter().collect()
            }
            Value::Object(table) => table.values().flat_map(kinds).collect(),
            Value::Array(list) => list.iter().flat_map(kinds).collect(),
            _ => Vec::new(),
        }
    }
    kinds(&serde_json::to_value(setting).unwrap_or_default()).join(" + ")
}

impl Example for PreferenceExample {
    const PLURAL: &'static str = "pairs";

    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = vec![
            Part { name: "prompt", tokens: &self.prompt, learnt: Learnt::None },
            Part { name: "chosen", tokens: &self.chosen, learnt: Learnt::All },
            Part { name: "rejected", tokens: &self.rejected, learnt: Learnt::All },
        ];
        let gold = self.gold.as_deref();
        parts.extend(gold.map(|tokens| Part { name: "gold", tokens, learnt: Learnt::All }));
        parts
    }

    fn label(&self) -> Option<String> {
        self.margin.map(|margin| format!("margin {margin}"))
    }
}

impl Example for UnpairedExample {
    const PLURAL: &'static str = "completions";

    fn parts(&self) -> Vec<Part<'_>> {
        vec![
            Part { name: "prompt", tokens: &self.prompt, learnt: Learnt::None },
            Part { name: "completion", tokens: &self.completion, learnt: Learnt::All },
        ]
    }

    fn label(&self) -> Option<String> {
        Some(if self.desirable { "desirable" } else { "undesirable" }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_needs_what_it_is_made_of() {
        let said = |policy, has_adapter, is_streamed| {
            let checked = check_reference("dpo", Some(policy), Around { has_adapter, is_streamed });
            checked.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(said(ReferencePolicy::AdapterOff {}, false, false).contains("add [adapter]"));
        assert_eq!(said(ReferencePolicy::AdapterOff {}, true, true), "");
        assert!(said(ReferencePolicy::Precomputed {}, true, true).contains("data.streaming"));
        assert_eq!(said(ReferencePolicy::Precomputed {}, false, false), "");
        assert_eq!(said(ReferencePolicy::Frozen {}, false, true), "");
    }
}
