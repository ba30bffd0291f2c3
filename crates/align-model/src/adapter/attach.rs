//! Putting adapters on a decoder and taking them off.

use std::collections::BTreeMap;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use rand_chacha::ChaCha8Rng;

use super::{
    AdapterError,
    config::{AdapterInitialization, AdapterKind, LoraConfig},
    lora::{AdapterSettings, AdapterValues, LoraAdapter},
    modules::{AdaptableModule, modules},
    selection::{Selected, select, select_whole},
    whole::{Originals, WholeParameter, take_over, unfreeze, whole_parameters},
};
use crate::{
    decoder::{Decoder, Weight},
    pretrained::{Family, HostTensor},
};

/// What the adapters of a model were made from.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(super) family: Family,
    pub(super) config: LoraConfig,
    /// What the modules that are trained whole were before.
    pub(super) originals: Originals,
}

/// The values of what is to be trained.
pub(super) trait Values {
    /// An adapter's matrices and, unless it is to be found from the weights, its magnitude.
    fn of_adapter(
        &mut self,
        model: &Decoder,
        selected: &Selected<'_>,
    ) -> Result<(AdapterValues, Option<Vec<f32>>), AdapterError>;

    /// A parameter of a module that is trained whole; `None` if it begins as it is.
    fn of_whole(&mut self, parameter: &WholeParameter) -> Result<Option<HostTensor>, AdapterError>;
}

/// Values with which training begins.
struct Fresh<'a> {
    initialization: AdapterInitialization,
    rng: &'a mut ChaCha8Rng,
}

impl Values for Fresh<'_> {
    fn of_adapter(
        &mut self,
        model: &Decoder,
        selected: &Selected<'_>,
    ) -> Result<(AdapterValues, Option<Vec<f32>>), AdapterError> {
        let shape = selected.module.shape(model);
        Ok((AdapterValues::fresh(shape, selected.rank, self.initialization, self.rng), None))
    }

    fn of_whole(&mut self, _: &WholeParameter) -> Result<Option<HostTensor>, AdapterError> {
        Ok(None)
    }
}

/// What training an adapter changes and what it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterParameters {
    /// What is trained, in the model's order.
    pub trained: Vec<TrainedParameter>,
    /// Numbers that are trained.
    pub trained_count: usize,
    /// Numbers that are not.
    pub frozen_count: usize,
}

/// A tensor of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedParameter {
    /// PEFT's name.
    pub name: String,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
}

impl Decoder {
    /// The same model with fresh adapters, which change nothing yet. Everything else is frozen: it takes part in no
    /// gradient, and `train` and `valid` leave it so.
    ///
    /// # Errors
    /// If the configuration names layers that the model does not have, the model has adapters already, or a weight that
    /// is to be rounded cannot be read from its device.
    pub fn with_adapter(
        self,
        family: Family,
        config: &LoraConfig,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, AdapterError> {
        if self.attached.is_some() {
            return Err(AdapterError::AlreadyAdapted);
        }
        let all = modules(&self, family);
        // Before anything is copied: a name that is wrong should not cost minutes.
        let selected = select(config, &all)?;
        select_whole(config, &selected, &whole_parameters(&self, family))?;
        let values = Fresh { initialization: config.initialization, rng };
        self.quantize_base(config.base)?.attach((family, config.clone()), &selected, values)
    }

    /// Freezes the model, puts an adapter on each of `selected` and makes the modules that are trained whole trainable.
    pub(super) fn attach(
        self,
        (family, config): (Family, LoraConfig),
        selected: &[Selected<'_>],
        mut values: impl Values,
    ) -> Result<Self, AdapterError> {
        if self.attached.is_some() {
            return Err(AdapterError::AlreadyAdapted);
        }
        let parameters = whole_parameters(&self, family);
        let whole = select_whole(&config, selected, &parameters)?;
        let head = selected.iter().find(|selected| selected.module.block.is_none());
        if let Some(head) = head.filter(|_| config.dropout.get() > 0.0) {
            return Err(AdapterError::DropoutOnHead { name: head.module.name.clone() });
        }
        let replaced = whole.into_iter().map(|one| Ok((one.path.clone(), values.of_whole(one)?)));
        let replaced = replaced.collect::<Result<BTreeMap<_, _>, AdapterError>>()?;
        let mut model = self.no_grad();
        let device = model.embedding.lazy_device();
        for (stream, selected) in selected.iter().enumerate() {
            let Selected { module, rank, alpha } = selected;
            let (values, magnitude) = values.of_adapter(&model, selected)?;
            let settings = AdapterSettings {
                scale: config.scaling.factor(*alpha, *rank),
                dropout: config.dropout.get(),
                stream: stream as u64,
                layout: module.layout,
            };
            let mut adapter = LoraAdapter::new(values, module.shape(&model), settings, &device);
            if config.kind == AdapterKind::Dora {
                let magnitude = match magnitude {
                    Some(values) => Tensor::from_data(TensorData::from(values.as_slice()), &device),
                    None => adapter.initial_magnitude(weights(module, &model)).to_device(&device),
                };
                let magnitude = if device.is_autodiff() { magnitude.autodiff() } else { magnitude };
                adapter.magnitude = Some(Param::from_tensor(magnitude));
            }
            module.set_adapter(&mut model, Some(adapter));
        }
        let originals = if replaced.is_empty() {
            Originals::default()
        } else {
            let (unfrozen, originals) = unfreeze(model, replaced);
            model = unfrozen;
            originals
        };
        model.attached = Some(Attached { family, config, originals });
        Ok(model)
    }

    /// What the adapters were made from, or `None` if there are none.
    #[must_use]
    pub fn adapter_config(&self) -> Option<&LoraConfig> {
        self.attached.as_ref().map(|attached| &attached.config)
    }

    /// The model as it was before it got adapters: frozen, and with the same weights in memory. It is the reference of
    /// what the adapters learn.
    #[must_use]
    pub fn without_adapter(&self) -> Self {
        let mut model = self.clone();
        for module in self.adapted_modules() {
            module.set_adapter(&mut model, None);
        }
        match model.attached.take() {
            Some(attached) if !attached.originals.is_empty() => attached.originals.restore(model),
            _ => model,
        }
    }

    /// The model with its adapters worked into the weights: the same outputs, no adapter, nothing frozen.
    ///
    /// # Errors
    /// If there is no adapter, or the weights are kept in fewer bits: see
    /// [`dequantize_base`](Decoder::dequantize_base).
    pub fn merge_adapter(self) -> Result<Self, AdapterError> {
        let Some(attached) = &self.attached else { return Err(AdapterError::NoAdapter) };
        if self.is_quantized() {
            return Err(AdapterError::QuantizedBase);
        }
        let mut model = take_over(self.without_adapter(), &self, &attached.originals);
        for module in self.adapted_modules() {
            let Some(adapter) = module.adapter(&self) else { continue };
            let merged = adapter.merged(weights(&module, &self));
            for (layer, merged) in module.layers_mut(&mut model).into_iter().zip(merged) {
                let Weight::Full(parameter) = &mut layer.weight else {
                    return Err(AdapterError::QuantizedBase);
                };
                *parameter = parameter.clone().map(|old| {
                    let merged = merged.cast(old.dtype());
                    if old.is_autodiff() { merged.autodiff() } else { merged }
                });
            }
        }
        Ok(model.set_require_grad(true))
    }

    /// What training changes and what it leaves, with PEFT's names.
    #[must_use]
    pub fn adapter_parameters(&self) -> AdapterParameters {
        let mut trained = Vec::new();
        for module in self.adapted_modules() {
            let Some(adapter) = module.adapter(self) else { continue };
            let magnitude = adapter.magnitude.as_ref().map(Param::lazy_shape);
            let shapes = [Some(adapter.a.lazy_shape()), Some(adapter.b.lazy_shape()), magnitude];
            let tensors = module.tensor_names().into_iter().zip(shapes);
            trained.extend(tensors.filter_map(|(name, shape)| {
                Some(TrainedParameter { name, shape: shape?.as_slice().to_vec() })
            }));
        }
        let count = |trained: &[TrainedParameter]| -> usize {
            trained.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
        };
        // What is trained whole is kept as it was, too.
        let frozen_count = self.parameter_count() - count(&trained);
        trained.extend(
            self.whole_parameters()
                .into_iter()
                .map(|parameter| TrainedParameter { name: parameter.tensor_name(), shape: parameter.shape }),
        );
        let trained_count = count(&trained);
        AdapterParameters { trained, trained_count, frozen_count }
    }

    /// The parameters of the modules that are trained whole.
    pub(super) fn whole_parameters(&self) -> Vec<WholeParameter> {
        let Some(attached) = &self.attached else { return Vec::new() };
        let all = whole_parameters(self, attached.family).into_iter();
        all.filter(|parameter| attached.originals.contains(&parameter.path)).collect()
    }

    /// The layers that have an adapter.
    pub(super) fn adapted_modules(&self) -> Vec<AdaptableModule> {
        let all = self.attached.as_ref().map_or_else(Vec::new, |attached| modules(self, attached.family));
        all.into_iter().filter(|module| module.adapter(self).is_some()).collect()
    }
}

/// The weights of a module's layers.
fn weights(module: &AdaptableModule, model: &Decoder) -> Vec<Tensor<2>> {
    module.layers(model).into_iter().map(|layer| layer.weight.val().without_autodiff()).collect()
}
