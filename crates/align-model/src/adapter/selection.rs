//! Which layers a configuration means, and with which rank and factor.

use super::{
    AdapterError,
    config::{LoraConfig, Targets},
    modules::AdaptableModule,
    whole::WholeParameter,
};

/// A layer that is to be adapted.
#[derive(Debug)]
pub(super) struct Selected<'a> {
    pub(super) module: &'a AdaptableModule,
    pub(super) rank: usize,
    pub(super) alpha: f64,
}

/// The parameters of the modules that a configuration means to train whole.
pub(super) fn select_whole<'a>(
    config: &LoraConfig,
    adapted: &[Selected<'_>],
    parameters: &'a [WholeParameter],
) -> Result<Vec<&'a WholeParameter>, AdapterError> {
    for name in &config.modules_to_save {
        if !parameters.iter().any(|parameter| parameter.is_called(name)) {
            let mut available: Vec<&str> =
                parameters.iter().filter_map(|parameter| parameter.module.rsplit('.').next()).collect();
            available.sort_unstable();
            available.dedup();
            let (key, name, available) = ("modules_to_save", name.clone(), available.join(", "));
            return Err(AdapterError::NoSuchLayer { key, name, available });
        }
    }
    let is_chosen =
        |parameter: &&WholeParameter| config.modules_to_save.iter().any(|name| parameter.is_called(name));
    let chosen: Vec<&WholeParameter> = parameters.iter().filter(is_chosen).collect();
    match chosen.iter().find(|whole| adapted.iter().any(|selected| selected.module.name == whole.module)) {
        Some(both) => Err(AdapterError::AdaptedAndWhole { name: both.module.clone() }),
        None => Ok(chosen),
    }
}

/// The layers that a configuration means, in the model's order.
pub(super) fn select<'a>(
    config: &LoraConfig,
    modules: &'a [AdaptableModule],
) -> Result<Vec<Selected<'a>>, AdapterError> {
    if let Targets::Modules(names) = &config.targets {
        check_names("targets", names, modules)?;
    }
    check_names("exclude", &config.exclude, modules)?;
    check_blocks(config, modules)?;
    let chosen: Vec<&AdaptableModule> = modules.iter().filter(|module| is_chosen(config, module)).collect();
    if chosen.is_empty() {
        return Err(AdapterError::NothingToAdapt);
    }
    check_names("rank_pattern", config.rank_pattern.keys(), chosen.iter().copied())?;
    check_names("alpha_pattern", config.alpha_pattern.keys(), chosen.iter().copied())?;
    let selected = |module| Selected {
        module,
        rank: longest_match(module, &config.rank_pattern).unwrap_or(&config.rank).get(),
        alpha: longest_match(module, &config.alpha_pattern).unwrap_or(&config.alpha).get(),
    };
    Ok(chosen.into_iter().map(selected).collect())
}

fn is_chosen(config: &LoraConfig, module: &AdaptableModule) -> bool {
    let targeted = match &config.targets {
        Targets::FamilyDefault => module.is_family_default(),
        Targets::AllLinear => module.block.is_some(),
        Targets::Modules(names) => names.iter().any(|name| module.is_called(name)),
    };
    let in_blocks = config
        .layers_to_transform
        .as_ref()
        .is_none_or(|blocks| module.block.is_some_and(|block| blocks.contains(&block)));
    targeted && in_blocks && !config.exclude.iter().any(|name| module.is_called(name))
}

fn longest_match<'a, V>(
    module: &AdaptableModule,
    patterns: impl IntoIterator<Item = (&'a String, V)>,
) -> Option<V> {
    let matching = patterns.into_iter().filter(|(name, _)| module.is_called(name));
    matching.max_by_key(|(name, _)| name.len()).map(|(_, value)| value)
}

/// Fails at the first name that means no layer.
fn check_names<'a>(
    key: &'static str,
    names: impl IntoIterator<Item = &'a String>,
    modules: impl IntoIterator<Item = &'a AdaptableModule> + Clone,
) -> Result<(), AdapterError> {
    let is_unknown = |name: &&String| !modules.clone().into_iter().any(|module| module.is_called(name));
    match names.into_iter().find(is_unknown) {
        None => Ok(()),
        Some(name) => {
            let mut available: Vec<&str> =
                modules.clone().into_iter().map(AdaptableModule::short_name).collect();
            available.sort_unstable();
            available.dedup();
            Err(AdapterError::NoSuchLayer { key, name: name.clone(), available: available.join(", ") })
        }
    }
}

fn check_blocks(config: &LoraConfig, modules: &[AdaptableModule]) -> Result<(), AdapterError> {
    let blocks = modules.iter().filter_map(|module| module.block).max().map_or(0, |last| last + 1);
    match config.layers_to_transform.iter().flatten().find(|&&block| block >= blocks) {
        Some(&block) => Err(AdapterError::NoSuchBlock { block, blocks }),
        None => Ok(()),
    }
}
