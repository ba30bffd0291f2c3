//! The layers that can get an adapter, under the names that transformers gives them.

use super::lora::{LoraAdapter, OutputLayout};
use crate::{
    decoder::{Block, Decoder, Linear},
    pretrained::{Family, Fusion, tensor_name as weight_name},
};

/// What PEFT puts before the names of transformers.
pub(super) const PREFIX: &str = "base_model.model.";

const PARTS: [(&str, &str); 3] =
    [("a", "lora_A.weight"), ("b", "lora_B.weight"), ("magnitude", "lora_magnitude_vector")];

/// PEFT's name of the tensor that holds a parameter of an adapter, or `None` if the parameter is of no adapter.
pub(crate) fn tensor_name(family: Family, parameter: &str) -> Option<String> {
    let (module, part) = parameter.rsplit_once(".adapter.")?;
    let (_, part) = PARTS.iter().find(|(field, _)| *field == part)?;
    Some(format!("{PREFIX}{}.{part}", module_name(family, module)))
}

/// Whether a parameter is the magnitude of an adapter.
pub(crate) fn is_magnitude(parameter: &str) -> bool {
    parameter.ends_with(".adapter.magnitude")
}

/// transformers' name of the tensor that holds a parameter. Files of GPT-NeoX call the head `embed_out`; the model that is
/// made of them has called it `lm_head`, as other families do, since transformers 5.
pub(super) fn parameter_name(family: Family, path: &str) -> String {
    let name = weight_name(family, path);
    name.strip_prefix("embed_out.").map_or_else(|| name.clone(), |part| format!("lm_head.{part}"))
}

/// transformers' name of a layer of the decoder; `attention` itself is query, key and value in one.
fn module_name(family: Family, path: &str) -> String {
    let inner = if path.ends_with(".attention") { ".query" } else { "" };
    let name = parameter_name(family, &format!("{path}{inner}.weight"));
    name.strip_suffix(".weight").map_or(name.clone(), str::to_string)
}

/// A layer that can get an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdaptableModule {
    /// transformers' name, such as `model.layers.0.self_attn.q_proj`.
    pub(super) name: String,
    /// The block it is in; the head is in none.
    pub(super) block: Option<usize>,
    slot: Slot,
    /// Which rows of an adapter's `B` belong to which layer of the decoder.
    pub(super) layout: OutputLayout,
}

/// A place for an adapter, in a block or at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    QueryKeyValue,
    Query,
    Key,
    Value,
    AttentionOutput,
    Gate,
    Up,
    Down,
    Head,
}

impl Slot {
    const IN_BLOCK: [Self; 8] = [
        Self::QueryKeyValue,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::QueryKeyValue => "attention",
            Self::Query => "attention.query",
            Self::Key => "attention.key",
            Self::Value => "attention.value",
            Self::AttentionOutput => "attention.output",
            Self::Gate => "mlp.gate",
            Self::Up => "mlp.up",
            Self::Down => "mlp.down",
            Self::Head => "head",
        }
    }

    fn layers(self, block: &Block) -> Vec<&Linear> {
        let attention = &block.attention;
        match self {
            Self::QueryKeyValue => vec![&attention.query, &attention.key, &attention.value],
            Self::Query => vec![&attention.query],
            Self::Key => vec![&attention.key],
            Self::Value => vec![&attention.value],
            Self::AttentionOutput => vec![&attention.output],
            Self::Gate => block.mlp.gate.iter().collect(),
            Self::Up => vec![&block.mlp.up],
            Self::Down => vec![&block.mlp.down],
            Self::Head => Vec::new(),
        }
    }

    fn layers_mut(self, block: &mut Block) -> Vec<&mut Linear> {
        let attention = &mut block.attention;
        match self {
            Self::QueryKeyValue => vec![&mut attention.query, &mut attention.key, &mut attention.value],
            Self::Query => vec![&mut attention.query],
            Self::Key => vec![&mut attention.key],
            Self::Value => vec![&mut attention.value],
            Self::AttentionOutput => vec![&mut attention.output],
            Self::Gate => block.mlp.gate.iter_mut().collect(),
            Self::Up => vec![&mut block.mlp.up],
            Self::Down => vec![&mut block.mlp.down],
            Self::Head => Vec::new(),
        }
    }
}

/// Every layer of the model that can get an adapter, block by block.
pub(super) fn modules(model: &Decoder, family: Family) -> Vec<AdaptableModule> {
    let layout = match family.fusion() {
        Fusion::None => OutputLayout::Single,
        Fusion::Thirds => OutputLayout::Thirds,
        Fusion::HeadThirds => OutputLayout::HeadThirds { head_dim: model.config().head_dim },
    };
    let fused = layout != OutputLayout::Single;
    let exists = |block: &Block, slot: Slot| match slot {
        Slot::QueryKeyValue => fused,
        Slot::Query | Slot::Key | Slot::Value => !fused,
        other => !other.layers(block).is_empty(),
    };
    let mut found = Vec::new();
    for (index, block) in model.layers.iter().enumerate() {
        found.extend(Slot::IN_BLOCK.into_iter().filter(|&slot| exists(block, slot)).map(|slot| {
            AdaptableModule {
                name: module_name(family, &format!("layers.{index}.{}", slot.path())),
                block: Some(index),
                slot,
                layout: if slot == Slot::QueryKeyValue { layout } else { OutputLayout::Single },
            }
        }));
    }
    if model.head.is_some() {
        let (name, layout) = (module_name(family, Slot::Head.path()), OutputLayout::Single);
        found.push(AdaptableModule { name, block: None, slot: Slot::Head, layout });
    }
    found
}

impl AdaptableModule {
    /// Whether PEFT adapts it if told nothing: query and value, or all three where they are one.
    pub(super) fn is_family_default(&self) -> bool {
        matches!(self.slot, Slot::QueryKeyValue | Slot::Query | Slot::Value)
    }

    /// The last part of its name.
    pub(super) fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Whether a name as users write it means this layer.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let rest = self.name.strip_suffix(name);
        !name.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// PEFT's names of its tensors: A, B and the magnitude.
    pub(super) fn tensor_names(&self) -> [String; 3] {
        PARTS.map(|(_, part)| format!("{PREFIX}{}.{part}", self.name))
    }

    /// The decoder's layers that it stands for.
    pub(super) fn layers<'a>(&self, model: &'a Decoder) -> Vec<&'a Linear> {
        match self.block {
            Some(index) => self.slot.layers(&model.layers[index]),
            None => model.head.iter().collect(),
        }
    }

    /// The decoder's layers that it stands for.
    pub(super) fn layers_mut<'a>(&self, model: &'a mut Decoder) -> Vec<&'a mut Linear> {
        match self.block {
            Some(index) => self.slot.layers_mut(&mut model.layers[index]),
            None => model.head.iter_mut().collect(),
        }
    }

    /// Outputs, in all, and inputs.
    pub(super) fn shape(&self, model: &Decoder) -> [usize; 2] {
        let shapes = self.layers(model).into_iter().map(|layer| layer.weight.shape());
        shapes.fold([0, 0], |[outputs, _], [output, input]| [outputs + output, input])
    }

    /// The adapter on it.
    pub(super) fn adapter<'a>(&self, model: &'a Decoder) -> Option<&'a LoraAdapter> {
        match (self.slot, self.block) {
            (Slot::QueryKeyValue, Some(index)) => model.layers[index].attention.adapter.as_ref(),
            _ => self.layers(model).first().and_then(|layer| layer.adapter.as_ref()),
        }
    }

    /// Puts an adapter on it, or takes it away.
    pub(super) fn set_adapter(&self, model: &mut Decoder, adapter: Option<LoraAdapter>) {
        if let (Slot::QueryKeyValue, Some(index)) = (self.slot, self.block) {
            model.layers[index].attention.adapter = adapter;
        } else if let Some(layer) = self.layers_mut(model).into_iter().next() {
            layer.adapter = adapter;
        }
    }
}
