//! Prompts with their completions, laid out for one pass of a model.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use super::Targets;
use crate::causal_lm::TokenBatch;

/// A prompt and completions of it.
#[derive(Debug, Clone)]
pub struct Prompted<'a> {
    /// What all completions begin with; may be empty.
    pub prompt: &'a [u32],
    /// What follows it.
    pub completions: Vec<Continuation<'a>>,
}

/// Tokens that follow a prompt, and which of them are targets.
#[derive(Debug, Clone, Copy)]
pub struct Continuation<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// As long as `tokens`; `None` where all are targets.
    pub is_target: Option<&'a [bool]>,
}

impl<'a, T: AsRef<[u32]> + ?Sized> From<&'a T> for Continuation<'a> {
    fn from(tokens: &'a T) -> Self {
        Self { tokens: tokens.as_ref(), is_target: None }
    }
}

impl AsRef<[u32]> for Continuation<'_> {
    fn as_ref(&self) -> &[u32] {
        self.tokens
    }
}

/// What becomes of prompts.
#[derive(Debug, Clone, Copy)]
pub struct Prompts {
    /// Whether one is computed once for several completions, which [the model must know how to
    /// do](crate::causal_lm::CausalLm::shares_prompts).
    pub are_shared: bool,
    /// Whether their tokens are targets.
    pub are_read: bool,
}

/// A batch and where in its targets each completion lies.
///
/// Targets stand in the order of prompts and their completions, shared or not: what is computed from them does not
/// depend on how the batch is laid out.
#[derive(Debug)]
pub struct CompletionLayout {
    /// What a model reads.
    pub batch: TokenBatch,
    /// What it is asked about.
    pub targets: Targets,
    /// Targets of each completion, prompt after prompt.
    pub completions: Vec<Range<usize>>,
    /// Targets of each prompt; empty where prompts are no targets.
    pub prompts: Vec<Range<usize>>,
}

impl CompletionLayout {
    /// Lays `items` out.
    ///
    /// # Panics
    /// If a completion is empty, or marks other than its tokens.
    #[must_use]
    pub fn new(items: &[Prompted<'_>], Prompts { are_shared, are_read }: Prompts) -> Self {
        let (mut batch, mut marks) = (TokenBatch::default(), Vec::new());
        let (mut completions, mut prompts, mut end) = (Vec::new(), Vec::new(), 0);
        let mut next = |length: usize| {
            end += length;
            end - length..end
        };
        for Prompted { prompt, completions: of_prompt } in items {
            prompts.push(next(if are_read { prompt.len().saturating_sub(1) } else { 0 }));
            completions.extend(of_prompt.iter().map(|it| next(it.targets(prompt.is_empty()))));
            if are_shared && !prompt.is_empty() && of_prompt.len() > 1 {
                batch.push_sharing(prompt, of_prompt);
                marks.resize(marks.len() + prompt.len(), are_read);
                for completion in of_prompt {
                    completion.mark(&mut marks);
                }
                continue;
            }
            for (index, completion) in of_prompt.iter().enumerate() {
                batch.push(&[prompt, completion.tokens].concat(), 0);
                marks.resize(marks.len() + prompt.len(), are_read && index == 0);
                completion.mark(&mut marks);
            }
        }
        let targets = Targets::selected(&batch, &marks);
        debug_assert_eq!(targets.len(), end, "every target belongs to a prompt or a completion");
        Self { batch, targets, completions, prompts }
    }

    /// Target tokens of each completion.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.completions.iter().map(Range::len).collect()
    }

    /// A sum for each completion of what its targets have, weighted by `weight(completion, token)`. `values`: `[targets]`;
    /// result: `[completions]`.
    pub fn sums(&self, values: &Tensor<1>, weight: impl Fn(usize, usize) -> f32) -> Tensor<1> {
        sums(values, &self.completions, weight)
    }

    /// A sum for each prompt and its first completion, unweighted. `values`: `[targets]`; result: `[prompts]`.
    #[must_use]
    pub fn sums_of_whole(&self, values: &Tensor<1>) -> Tensor<1> {
        sums(values, &self.wholes(), |_, _| 1.0)
    }

    /// Target tokens of each prompt and its first completion.
    #[must_use]
    pub fn lengths_of_whole(&self) -> Vec<usize> {
        self.wholes().iter().map(Range::len).collect()
    }

    fn wholes(&self) -> Vec<Range<usize>> {
        let per_prompt = self.completions.len() / self.prompts.len();
        let first = self.completions.iter().step_by(per_prompt);
        self.prompts.iter().zip(first).map(|(prompt, first)| prompt.start..first.end).collect()
    }
}

impl Continuation<'_> {
    /// How many of its tokens are targets. A first token with nothing before it is never predicted.
    fn targets(&self, is_first: bool) -> usize {
        let skipped = usize::from(is_first);
        match self.is_target {
            Some(marks) => marks.iter().skip(skipped).filter(|&&mark| mark).count(),
            None => self.tokens.len() - skipped,
        }
    }

    fn mark(&self, marks: &mut Vec<bool>) {
        match self.is_target {
            Some(own) => {
                assert_eq!(own.len(), self.tokens.len(), "a mark for every token");
                marks.extend_from_slice(own);
            }
            None => marks.resize(marks.len() + self.tokens.len(), true),
        }
    }
}

fn sums(values: &Tensor<1>, ranges: &[Range<usize>], weight: impl Fn(usize, usize) -> f32) -> Tensor<1> {
    let total = values.dims()[0];
    let mut matrix = vec![0.0f32; ranges.len() * total];
    for (row, range) in ranges.iter().enumerate() {
        for (offset, target) in range.clone().enumerate() {
            matrix[row * total + target] = weight(row, offset);
        }
    }
    let matrix = Tensor::<2>::from_data(TensorData::new(matrix, [ranges.len(), total]), &values.device());
    matrix.matmul(values.clone().unsqueeze_dim(1)).squeeze_dim(1)
}

/// Numbers on a device. Shape `[numbers]`.
pub fn vector(values: impl IntoIterator<Item = f32>, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.into_iter().collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// A tensor without a graph, `[numbers]`, as one that can stand beside `other`, of any length.
#[must_use]
pub fn like(x: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    if other.is_autodiff() && !x.is_autodiff() { Tensor::from_inner(x) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_have_the_same_targets_in_the_same_places() {
        let items = [
            Prompted { prompt: &[1, 2, 3], completions: vec![(&[4, 5]).into(), (&[6]).into()] },
            Prompted { prompt: &[], completions: vec![(&[7, 8]).into(), (&[9, 1, 2]).into()] },
        ];
        for are_read in [false, true] {
            let shared = CompletionLayout::new(&items, Prompts { are_shared: true, are_read });
            let separate = CompletionLayout::new(&items, Prompts { are_shared: false, are_read });
            assert_eq!(shared.targets.tokens(), separate.targets.tokens());
            assert_eq!(shared.completions, separate.completions);
            assert_eq!(shared.prompts, separate.prompts);
            let of = |range: &Range<usize>| shared.targets.tokens()[range.clone()].to_vec();
            assert_eq!(
                shared.completions.iter().map(of).collect::<Vec<_>>(),
                [vec![4, 5], vec![6], vec![8], vec![1, 2]]
            );
        }
        let layout = CompletionLayout::new(&items, Prompts { are_shared: true, are_read: true });
        assert_eq!(layout.targets.tokens()[layout.prompts[0].clone()], [2, 3]);
        let values = vector([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0], &Device::flex());
        let read = |t: Tensor<1>| t.into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(read(layout.sums(&values, |_, _| 1.0)), [12.0, 16.0, 32.0, 192.0]);
        assert_eq!(read(layout.sums_of_whole(&values)), [15.0, 32.0]);
        assert_eq!(
            read(layout.sums(&values, |row, token| if row == 0 { token as f32 } else { 0.0 })),
            [8.0, 0.0, 0.0, 0.0]
        );
    }
    #[test]
    fn only_marked_tokens_are_targets() {
        let marked = |tokens, is_target| Continuation { tokens, is_target: Some(is_target) };
        let items = [
            Prompted {
                prompt: &[1, 2],
                completions: vec![marked(&[3, 4, 5], &[true, false, true]), (&[6]).into()],
            },
            Prompted { prompt: &[], completions: vec![marked(&[7, 8], &[true, true])] },
        ];
        for are_shared in [false, true] {
            let layout = CompletionLayout::new(&items, Prompts { are_shared, are_read: false });
            assert_eq!(layout.targets.tokens(), [3, 5, 6, 8]);
            assert_eq!(layout.completions, [0..2, 2..3, 3..4]);
        }
    }
}
