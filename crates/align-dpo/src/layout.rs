//! Prompts with their completions, laid out for one pass of a model.

use std::ops::Range;

use align_model::{causal_lm::TokenBatch, logprob::Targets};
use burn::tensor::{Device, Tensor, TensorData};

/// A prompt and completions of it.
#[derive(Debug, Clone)]
pub(crate) struct Prompted<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) completions: Vec<&'a [u32]>,
}

/// What becomes of prompts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prompts {
    /// Whether the model can compute one once for several completions.
    pub(crate) are_shared: bool,
    /// Whether their tokens are targets.
    pub(crate) are_read: bool,
}

/// A batch and where in its targets each completion lies.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) batch: TokenBatch,
    pub(crate) targets: Targets,
    /// Of each completion, prompt after prompt.
    pub(crate) completions: Vec<Range<usize>>,
    /// Of each prompt; empty where prompts are no targets.
    pub(crate) prompts: Vec<Range<usize>>,
}

impl Layout {
    /// Lays `items` out. Completions are targets.
    pub(crate) fn new(items: &[Prompted<'_>], Prompts { are_shared, are_read }: Prompts) -> Self {
        let (mut batch, mut marks) = (TokenBatch::default(), Vec::new());
        let (mut completions, mut prompts, mut end) = (Vec::new(), Vec::new(), 0);
        let mut next = |length: usize| {
            end += length;
            end - length..end
        };
        for Prompted { prompt, completions: of_prompt } in items {
            // A first token is never predicted.
            let unpredicted = usize::from(prompt.is_empty());
            prompts.push(next(if are_read { prompt.len().saturating_sub(1) } else { 0 }));
            completions.extend(of_prompt.iter().map(|completion| next(completion.len() - unpredicted)));
            if are_shared && !prompt.is_empty() && of_prompt.len() > 1 {
                batch.push_sharing(prompt, of_prompt);
                marks.resize(marks.len() + prompt.len(), are_read);
                marks.resize(batch.tokens().len(), true);
                continue;
            }
            for (index, completion) in of_prompt.iter().enumerate() {
                batch.push(&[prompt, *completion].concat(), 0);
                marks.resize(marks.len() + prompt.len(), are_read && index == 0);
                marks.resize(batch.tokens().len(), true);
            }
        }
        let targets = Targets::selected(&batch, &marks);
        debug_assert_eq!(targets.len(), end, "every target belongs to a prompt or a completion");
        Self { batch, targets, completions, prompts }
    }

    /// Target tokens of each completion.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.completions.iter().map(Range::len).collect()
    }

    /// A sum for each completion of what its targets have, weighted by `weight(completion, token)`. `values`: `[targets]`;
    /// result: `[completions]`.
    pub(crate) fn sums(&self, values: &Tensor<1>, weight: impl Fn(usize, usize) -> f32) -> Tensor<1> {
        sums(values, &self.completions, weight)
    }

    /// A sum for each prompt and its first completion, unweighted. `values`: `[targets]`; result: `[prompts]`.
    pub(crate) fn sums_of_whole(&self, values: &Tensor<1>) -> Tensor<1> {
        sums(values, &self.wholes(), |_, _| 1.0)
    }

    /// Target tokens of each prompt and its first completion.
    pub(crate) fn lengths_of_whole(&self) -> Vec<usize> {
        self.wholes().iter().map(Range::len).collect()
    }

    fn wholes(&self) -> Vec<Range<usize>> {
        let per_prompt = self.completions.len() / self.prompts.len();
        let first = self.completions.iter().step_by(per_prompt);
        self.prompts.iter().zip(first).map(|(prompt, first)| prompt.start..first.end).collect()
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
pub(crate) fn vector(values: impl IntoIterator<Item = f32>, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.into_iter().collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// A tensor without its graph.
pub(crate) fn plain(x: Tensor<1>) -> Tensor<1> {
    if x.is_autodiff() { x.inner() } else { x }
}

/// A tensor without a graph, as one that can stand beside `other`.
pub(crate) fn like(x: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    if other.is_autodiff() && !x.is_autodiff() { Tensor::from_inner(x) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_have_the_same_targets_in_the_same_places() {
        let items = [
            Prompted { prompt: &[1, 2, 3], completions: vec![&[4, 5], &[6]] },
            Prompted { prompt: &[], completions: vec![&[7, 8], &[9, 1, 2]] },
        ];
        for are_read in [false, true] {
            let shared = Layout::new(&items, Prompts { are_shared: true, are_read });
            let separate = Layout::new(&items, Prompts { are_shared: false, are_read });
            assert_eq!(shared.targets.tokens(), separate.targets.tokens());
            assert_eq!(shared.completions, separate.completions);
            assert_eq!(shared.prompts, separate.prompts);
            let of = |range: &Range<usize>| shared.targets.tokens()[range.clone()].to_vec();
            assert_eq!(
                shared.completions.iter().map(of).collect::<Vec<_>>(),
                [vec![4, 5], vec![6], vec![8], vec![1, 2]]
            );
        }
        let layout = Layout::new(&items, Prompts { are_shared: true, are_read: true });
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
}
