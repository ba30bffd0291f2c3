//! One decoder for every supported family; [`DecoderConfig`] says how they differ.

mod attention;
mod base;
mod block;
mod cache;
mod config;
mod elementwise;
mod linear;
mod mask;
mod mlp;
mod norm;
mod parameters;
mod pass;
mod precision;
mod product;
mod quantized;
mod rope;
mod training;
mod weight;

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

pub use attention::Attention;
pub use block::Block;
pub use cache::KvCache;
pub use config::{
    Activation, AttentionBias, DecoderConfig, Head, LayerConfig, MlpKind, NormConfig, NormPlacement,
    Positions, Residual,
};
pub use linear::Linear;
pub(crate) use mask::attention_cells;
pub use mlp::Mlp;
pub use norm::Norm;
pub use parameters::{ParameterSource, RandomParameters};
pub use precision::{ComputeDtype, ComputeDtypeError};
pub use quantized::{BaseWeights, QuantizedFormat, QuantizedMatrix};
pub use rope::{RopeConfig, RopeScaling, Rotation};
pub use weight::Weight;

use crate::{
    adapter::Attached,
    causal_lm::{
        CausalLm, HiddenPass, IncrementalLm, LogitsPass, PassOptions, TokenBatch, index_tensor, leading_rows,
    },
};
use cache::Alignment;
use mask::{AttentionPlan, start_mask};
use parameters::Builder;
use pass::Pass;

/// A decoder-only transformer with its head.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embedding, `[vocab, hidden]`; with a tied head also the head.
    pub embedding: Param<Tensor<2>>,
    /// Learned position embedding, `[max_positions, hidden]`, of families that have one.
    pub position_embedding: Option<Param<Tensor<2>>>,
    /// The blocks, in order.
    pub layers: Vec<Block>,
    /// Before the head.
    pub norm: Norm,
    /// The head, `[vocab, hidden]`, unless it is tied to the embedding.
    pub head: Option<Linear>,
    #[module(skip)]
    config: DecoderConfig,
    /// What the adapters were made from, while there are any.
    #[module(skip)]
    pub(crate) attached: Option<Attached>,
    #[module(skip)]
    compute: ComputeDtype,
    #[module(skip)]
    padding_token: Option<u32>,
}

impl Decoder {
    /// Builds a decoder whose parameters come from `source`.
    ///
    /// # Errors
    /// Whatever the source reports: a tensor that is missing or of another shape.
    pub fn build<S: ParameterSource>(
        config: &DecoderConfig,
        source: &mut S,
        device: &Device,
    ) -> Result<Self, S::Error> {
        let mut builder = Builder::new(source, device);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = builder.parameter("embedding", [vocab, hidden])?;
        let position_embedding = match config.positions {
            Positions::Learned => {
                Some(builder.parameter("position_embedding", [config.max_positions, hidden])?)
            }
            Positions::Rotary(_) => None,
        };
        let layers = builder.within("layers", |builder| {
            let build = |(index, layer): (usize, &LayerConfig)| {
                builder.within(index.to_string(), |b| Block::build(b, config, layer))
            };
            config.layers.iter().enumerate().map(build).collect::<Result<Vec<_>, _>>()
        })?;
        let norm = builder.within("norm", |b| Norm::build(b, config.norm, hidden))?;
        let head = match config.head {
            Head::Tied | Head::Absent => None,
            Head::Untied => Some(builder.within("head", |b| Linear::build(b, [hidden, vocab], false))?),
        };
        let (config, compute) = (config.clone(), ComputeDtype::default());
        let (attached, padding_token) = (None, None);
        Ok(Self {
            embedding,
            position_embedding,
            layers,
            norm,
            head,
            config,
            attached,
            compute,
            padding_token,
        })
    }

    /// Takes this token for padding: its embedding learns nothing where it is read, as with transformers' `padding_idx`,
    /// which Llama, Mistral, Qwen and Gemma have there and GPT-2 and GPT-NeoX have not. Nothing is padding unless told so: here,
    /// a token that is read is a token like others.
    #[must_use]
    pub fn with_padding_token(mut self, token: u32) -> Self {
        self.padding_token = Some(token);
        self
    }

    /// The sizes and choices that this decoder was built with.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The same parameters, used in another precision.
    ///
    /// # Errors
    /// If the device that the parameters are on does not compute in it.
    pub fn with_compute_dtype(mut self, compute: ComputeDtype) -> Result<Self, ComputeDtypeError> {
        compute.check(&self.device())?;
        self.compute = compute;
        Ok(self)
    }

    /// The same decoder without its head, for another one to read the hidden states: it has no logits.
    #[must_use]
    pub fn without_head(mut self) -> Self {
        self.head = None;
        self.config.head = Head::Absent;
        self
    }

    /// The same decoder for the first of its tokens alone. Checkpoints of one tokenizer may be filled up to different sizes with
    /// rows that stand for no token; without them, two models speak of the same.
    ///
    /// # Panics
    /// If it knows fewer tokens, or its head has an adapter.
    #[must_use]
    pub fn with_vocabulary(mut self, tokens: usize) -> Self {
        let known = self.config.vocab_size;
        assert!(tokens <= known, "{tokens} of {known} tokens cannot be kept");
        self.embedding = self.embedding.map(|embedding| leading_rows(embedding, tokens));
        self.head = self.head.map(|head| head.with_outputs(tokens));
        self.config.vocab_size = tokens;
        self
    }

    /// The precision of activations and products.
    #[must_use]
    pub fn compute_dtype(&self) -> ComputeDtype {
        self.compute
    }

    /// Number of weights; a head that is the embedding matrix itself counts once.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let quantized: usize = self.quantized().map(|matrix| matrix.shape().iter().product::<usize>()).sum();
        self.num_params() + quantized
    }

    /// The residual stream before the first block, after every block, and after the final norm: `layers + 2` tensors of
    /// shape `[tokens, hidden]`.
    #[must_use]
    pub fn hidden_states(&self, batch: &TokenBatch) -> Vec<Tensor<2>> {
        let mut states = vec![self.embed(batch)];
        let (rotations, plan) = (self.rotations(batch.positions()), self.plan(batch));
        for layer in &self.layers {
            let x = states[states.len() - 1].clone();
            let rotation = rotations.get(layer.attention.rope());
            states.push(layer.forward(x, rotation, Pass::default(), |a, p| a.attend(&p, &plan)));
        }
        states.push(self.norm.forward_wide(states[states.len() - 1].clone()));
        states
    }

    /// Final hidden states. `[tokens, hidden]`
    fn forward(&self, batch: &TokenBatch, pass: Pass) -> Tensor<2> {
        let (rotations, plan) = (self.rotations(batch.positions()), self.plan(batch));
        let x = self.layers.iter().fold(self.embed(batch), |x, layer| {
            layer.forward(x, rotations.get(layer.attention.rope()), pass, |a, p| a.attend(&p, &plan))
        });
        self.norm.forward_wide(x)
    }

    /// What the first block reads. Result `[tokens, hidden]`.
    fn embed(&self, batch: &TokenBatch) -> Tensor<2> {
        let largest = batch.tokens().iter().copied().max().unwrap_or(0) as usize;
        assert!(largest < self.config.vocab_size, "token {largest} is outside the vocabulary");
        let device = self.device();
        let embedded = self.embedding.val().select(0, batch.token_tensor(&device));
        let embedded = match self.learns(batch, &device) {
            Some(learns) if embedded.is_autodiff() => {
                embedded.clone() * learns.clone() + embedded.detach() * (-learns + 1.0)
            }
            _ => embedded,
        };
        let embedded = if (self.config.embedding_scale - 1.0).abs() > 0.0 {
            embedded * self.config.embedding_scale
        } else {
            embedded
        };
        let embedded = match &self.position_embedding {
            None => embedded,
            Some(learned) => {
                let last = batch.positions().iter().copied().max().unwrap_or(0) as usize;
                assert!(last < self.config.max_positions, "position {last} is outside the context");
                let positions = index_tensor(batch.positions().iter().map(|&p| p as usize), &device);
                embedded + learned.val().select(0, positions)
            }
        };
        embedded.cast(self.compute.dtype())
    }

    /// 0 at tokens that are padding and 1 at the others, `[tokens, 1]`; `None` if none is padding.
    fn learns(&self, batch: &TokenBatch, device: &Device) -> Option<Tensor<2>> {
        let padding = self.padding_token.filter(|padding| batch.tokens().contains(padding))?;
        let marks: Vec<f32> =
            batch.tokens().iter().map(|&token| f32::from(u8::from(token != padding))).collect();
        let count = marks.len();
        Some(Tensor::from_data(TensorData::new(marks, [count, 1]), &device.clone().without_autodiff()))
    }

    fn rotations(&self, positions: &[u32]) -> Vec<Rotation> {
        match &self.config.positions {
            Positions::Learned => Vec::new(),
            Positions::Rotary(variants) => {
                let device = self.device();
                variants.iter().map(|config| Rotation::new(config, positions, &device)).collect()
            }
        }
    }

    fn plan(&self, batch: &TokenBatch) -> AttentionPlan {
        let mut windows: Vec<_> = self.config.layers.iter().map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        AttentionPlan::new(batch, &windows, &self.device())
    }
}

impl CausalLm for Decoder {
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        self.forward(batch, Pass::default())
    }

    fn training_pass<'a>(&'a self, batch: &'a TokenBatch, options: PassOptions) -> HiddenPass<'a> {
        training::hidden_pass(self, batch, options)
    }

    fn training_logits(&self, hidden: Tensor<2>) -> LogitsPass<'_> {
        assert!(self.config.head != Head::Absent, "a decoder without a head has no logits");
        training::logits_pass(self, hidden)
    }

    fn shares_prompts(&self) -> bool {
        true
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        assert!(self.config.head != Head::Absent, "a decoder without a head has no logits");
        match &self.head {
            Some(head) => head.forward(hidden, Pass::default()),
            None => product::with_transposed(hidden, self.embedding.val()),
        }
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.config.max_positions
    }

    fn device(&self) -> Device {
        self.embedding.lazy_device()
    }
}

impl IncrementalLm for Decoder {
    type Cache = KvCache;

    fn prefill(&self, prompts: &TokenBatch) -> (Tensor<2>, KvCache) {
        assert!(!prompts.shares_prompts(), "each row of a cache is a whole prompt");
        let (rotations, plan) = (self.rotations(prompts.positions()), self.plan(prompts));
        let alignment = Alignment::new(prompts);
        let mut layers = Vec::with_capacity(self.layers.len());
        let x = self.layers.iter().fold(self.embed(prompts), |x, layer| {
            layer.forward(
                x,
                rotations.get(layer.attention.rope()),
                Pass::default(),
                |attention, projected| {
                    layers.push(alignment.layer(projected.key.clone(), projected.value.clone()));
                    attention.attend(&projected, &plan)
                },
            )
        });
        (self.norm.forward_wide(x), alignment.into_cache(layers, self.device()))
    }

    fn extend(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let positions = cache.next_positions();
        assert_eq!(tokens.len(), positions.len(), "one token for each row of the cache");
        let mut batch = TokenBatch::default();
        for (token, &position) in tokens.iter().zip(&positions) {
            batch.push(&[*token], position as usize);
        }
        let (rotations, device) = (self.rotations(&positions), self.device());
        let (column, mut appended) = (cache.column(), Vec::with_capacity(self.layers.len()));
        let mut x = self.embed(&batch);
        for (layer, cached) in self.layers.iter().zip(cache.take_layers()) {
            let rotation = rotations.get(layer.attention.rope());
            x = layer.forward(x, rotation, Pass::default(), |attention, new| {
                let cached = cached.append(new.key, new.value, column);
                let oldest = attention.window().map_or(0, |window| (column + 1).saturating_sub(window));
                let (keys, values) = cached.columns(oldest, column + 1);
                let mask = start_mask(&cache.starts_from(oldest), column + 1 - oldest, &device);
                appended.push(cached);
                attention.attend_cached(new.query, keys, values, mask)
            });
        }
        cache.put_back(appended);
        self.norm.forward_wide(x)
    }
}
