//! Modules that an adapter holds whole: PEFT's `modules_to_save`.

use std::collections::BTreeSet;

use super::{
    super::whole::{WholeParameter, head_module, whole_tensor_names},
    AdapterError, SavedAdapter,
};
use crate::{
    decoder::Head,
    pretrained::{Family, WeightSource as _},
};

impl SavedAdapter {
    /// The parameters that the file holds whole: all that the configuration promises, and what it holds besides.
    pub(super) fn stored_whole<'a>(
        &self,
        parameters: &'a [WholeParameter],
        (family, head): (Family, Head),
    ) -> Result<Vec<&'a WholeParameter>, AdapterError> {
        let mut stored = Vec::new();
        for parameter in parameters {
            // PEFT asks how names end, not which of their parts are equal.
            let is_promised = self.config.whole.iter().any(|name| parameter.module.ends_with(name));
            if self.stored_name(parameter).is_some() {
                stored.push(parameter);
            } else if is_promised {
                return Err(self.missing(&parameter.tensor_name()));
            }
        }
        if head == Head::Tied {
            self.check_tied(stored.iter().copied().find(|parameter| parameter.is_tied(head)), family)?;
        }
        Ok(stored)
    }

    /// The name under which the file holds a parameter.
    pub(super) fn stored_name(&self, parameter: &WholeParameter) -> Option<String> {
        parameter.tensor_names().into_iter().find(|name| self.weights.shape(name).is_some())
    }

    /// Where head and embedding are one matrix, PEFT writes it under both names, or else parts the two.
    fn check_tied(&self, embedding: Option<&WholeParameter>, family: Family) -> Result<(), AdapterError> {
        let names = whole_tensor_names(&head_module(family), "weight");
        let head = names.into_iter().find(|name| self.weights.shape(name).is_some());
        let embedding = embedding.and_then(|embedding| self.stored_name(embedding));
        let alone = match (embedding, head) {
            (None, None) => return Ok(()),
            (Some(embedding), Some(head)) => {
                if self.weights.read(&embedding)? == self.weights.read(&head)? {
                    return Ok(());
                }
                head
            }
            (Some(alone), None) | (None, Some(alone)) => alone,
        };
        Err(AdapterError::TiedHead { path: self.weights_path.clone(), tensor: alone })
    }
}

/// Every name that a tensor of these parameters may have.
pub(super) fn matching_names(whole: &[&WholeParameter], (family, head): (Family, Head)) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = whole.iter().flat_map(|parameter| parameter.tensor_names()).collect();
    if whole.iter().any(|parameter| parameter.is_tied(head)) {
        names.extend(whole_tensor_names(&head_module(family), "weight"));
    }
    names
}

/// The last parts of the names of some modules where no other module's name ends like that, else whole names.
pub(super) fn shortest_whole_names(all: &[WholeParameter], some: &[&WholeParameter]) -> BTreeSet<String> {
    let is_unmistakable = |short: &str| {
        let mut meant = all.iter().filter(|parameter| parameter.module.ends_with(short));
        meant.all(|parameter| some.iter().any(|one| one.module == parameter.module))
    };
    let name = |parameter: &&WholeParameter| {
        let short = parameter.module.rsplit('.').next().unwrap_or(&parameter.module);
        if is_unmistakable(short) { short.to_owned() } else { parameter.module.clone() }
    };
    some.iter().map(name).collect()
}
