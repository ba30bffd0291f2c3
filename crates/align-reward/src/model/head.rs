//! What reads hidden states.

use align_model::{
    decoder::{ParameterSource as _, RandomParameters},
    pretrained::{Classifier, ClassifierKind, HostTensor},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A linear layer from hidden states to numbers, and what makes grades of them where that is wanted.
#[derive(Module, Debug)]
pub struct ScoreHead {
    /// `[labels, hidden]`
    pub weight: Param<Tensor<2>>,
    /// `[labels]`; transformers' sequence classifiers have none, its token classifiers have one.
    pub bias: Option<Param<Tensor<1>>>,
    /// The first threshold between grades and the logarithms of the distances from each to the next, `[grades - 1]`: as
    /// distances they stay in order whatever training does.
    pub thresholds: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: ClassifierKind,
}

/// What the head has besides its linear layer, as `config.json` keeps it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thresholds: Option<Vec<f32>>,
}

impl ScoreHead {
    /// A head with the given weights. `weight`: `[labels, hidden]`, `bias`: `[labels]`, row-major.
    ///
    /// # Panics
    /// If the number of values is not that of the shape.
    #[must_use]
    pub fn from_values(
        kind: ClassifierKind,
        [labels, hidden]: [usize; 2],
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        device: &Device,
    ) -> Self {
        assert_eq!(weight.len(), labels * hidden, "a head of this shape has another number of weights");
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == labels), "a head has one bias a label");
        Self {
            weight: Param::from_data(TensorData::new(weight, [labels, hidden]), device),
            bias: bias.map(|bias| Param::from_data(TensorData::new(bias, [labels]), device)),
            thresholds: None,
            kind,
        }
    }

    /// A fresh head, as transformers initialises it: weights from a normal distribution, 0.02 wide in most models
    /// (`initializer_range`); a token classifier has a bias, which begins at 0.
    #[must_use]
    pub fn random(
        kind: ClassifierKind,
        [labels, hidden]: [usize; 2],
        standard_deviation: f32,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let mut source = RandomParameters { rng, standard_deviation, norm_weight: 1.0 };
        let Ok(weight) = source.parameter("weight", &[labels, hidden]);
        let bias = (kind == ClassifierKind::Token).then(|| vec![0.0; labels]);
        Self::from_values(kind, [labels, hidden], weight, bias, device)
    }

    /// The same head with thresholds that divide its scores into so many grades, 1 apart and around 0.
    ///
    /// # Panics
    /// If there are fewer than two grades or the head has more than one label.
    #[must_use]
    pub fn with_grades(mut self, grades: usize) -> Self {
        assert!(grades >= 2, "one grade divides nothing");
        assert_eq!(self.labels(), 1, "grades divide a single score");
        let first = -((grades - 2) as f32) / 2.0;
        let values: Vec<f32> = std::iter::once(first).chain(vec![0.0; grades - 2]).collect();
        let device = self.weight.lazy_device();
        self.thresholds = Some(Param::from_data(TensorData::new(values, [grades - 1]), &device));
        self
    }

    /// Numbers that it says of a text.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.weight.lazy_shape()[0]
    }

    /// Grades that its thresholds make of a score; `None` if it has none.
    #[must_use]
    pub fn grades(&self) -> Option<usize> {
        self.thresholds.as_ref().map(|thresholds| thresholds.lazy_shape()[0] + 1)
    }

    /// The thresholds between grades, increasing. Shape `[grades - 1]`.
    #[must_use]
    pub fn thresholds(&self) -> Option<Tensor<1>> {
        let raw = self.thresholds.as_ref()?.val();
        let count = raw.dims()[0];
        let first = raw.clone().narrow(0, 0, 1);
        if count == 1 {
            return Some(first);
        }
        let distances = raw.narrow(0, 1, count - 1).exp();
        Some(Tensor::cat(vec![first, distances], 0).cumsum(0))
    }

    /// `hidden`: `[positions, hidden]`; result: `[positions, labels]`.
    #[must_use]
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let scores = hidden.matmul(self.weight.val().transpose());
        match &self.bias {
            Some(bias) => scores + bias.val().unsqueeze_dim(0),
            None => scores,
        }
    }

    /// The head as a checkpoint holds it.
    pub(super) fn to_classifier(&self) -> Result<Classifier, String> {
        let host = |shape: Vec<usize>, data: Result<TensorData, String>| {
            let values = data.and_then(|data| data.try_into_vec::<f32>().map_err(|e| format!("{e:?}")));
            values.map(|values| HostTensor { shape, values })
        };
        let read = |tensor: Tensor<1>| tensor.try_into_data().map_err(|e| e.to_string());
        let weight = self.weight.val();
        let shape = weight.dims().to_vec();
        let weight = host(shape, weight.try_into_data().map_err(|e| e.to_string()))?;
        let bias = match &self.bias {
            Some(bias) => Some(host(vec![self.labels()], read(bias.val()))?),
            None => None,
        };
        let settings = match &self.thresholds {
            Some(thresholds) => {
                let values = host(Vec::new(), read(thresholds.val()))?.values;
                let settings = Settings { thresholds: Some(values) };
                Some(serde_json::to_value(settings).map_err(|e| e.to_string())?)
            }
            None => None,
        };
        Ok(Classifier { kind: self.kind, weight, bias, settings })
    }

    /// The head that a checkpoint holds.
    pub(super) fn from_classifier(classifier: Classifier, device: &Device) -> Result<Self, String> {
        let Classifier { kind, weight, bias, settings } = classifier;
        let shape = [weight.shape[0], weight.shape[1]];
        let mut head = Self::from_values(kind, shape, weight.values, bias.map(|bias| bias.values), device);
        let settings: Settings = match settings {
            Some(settings) => serde_json::from_value(settings).map_err(|e| e.to_string())?,
            None => Settings::default(),
        };
        if let Some(values) = settings.thresholds {
            if values.is_empty() || shape[0] != 1 {
                return Err(format!("{} thresholds of {} labels", values.len(), shape[0]));
            }
            let count = values.len();
            head.thresholds = Some(Param::from_data(TensorData::new(values, [count]), device));
        }
        Ok(head)
    }
}
