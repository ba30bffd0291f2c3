//! Low-rank adapters: LoRA and its relatives, on a frozen model, in PEFT's format.
//!
//! An adapter replaces the training of a weight `W` by that of two small matrices whose product is added to it.
//! [`Decoder::with_adapter`](crate::decoder::Decoder::with_adapter) freezes a model and gives its layers adapters;
//! [`without_adapter`](crate::decoder::Decoder::without_adapter) is the model as it was, with the same weights in memory:
//! the reference policy of preference and reinforcement learning costs nothing. What was trained is written by
//! [`save_adapter`] and read by [`SavedAdapter`], as PEFT does, or becomes part of the weights by
//! [`merge_adapter`](crate::decoder::Decoder::merge_adapter).
//!
//! Modules that are no linear layers of a block, such as embeddings, can be trained whole beside the adapters
//! ([`LoraConfig::modules_to_save`]); [`without_adapter`](crate::decoder::Decoder::without_adapter) has them as they were.
//!
//! The adapter of a classifier, a reward model say, also holds the classifier's head, whole: [`save_classifier_adapter`]
//! writes it and [`SavedAdapter::classifier`] reads it.
//!
//! LoRA: Hu et al. 2021 (arXiv:2106.09685). rsLoRA: Kalajdzievski 2023 (arXiv:2312.03732). `DoRA`: Liu et al. 2024
//! (arXiv:2402.09353). `QLoRA`: Dettmers et al. 2023 (arXiv:2305.14314).

mod attach;
mod config;
mod dropout;
mod error;
mod lora;
mod modules;
mod peft;
mod selection;
mod whole;

pub use attach::{AdapterParameters, TrainedParameter};
pub use config::{AdapterInitialization, AdapterKind, LoraConfig, Scaling, Targets};
pub use error::AdapterError;
pub use lora::{LoraAdapter, OutputLayout};
pub use peft::{SavedAdapter, save_adapter, save_classifier_adapter};

pub(crate) use attach::Attached;
pub(crate) use lora::{AdaptedPart, AdapterGradients};
pub(crate) use modules::{is_magnitude, tensor_name};
