//! The result on the disk: a model, an adapter, or both.

use std::{fs, path::Path};

use align_model::pretrained::SaveOptions;
use anyhow::{Context as _, Result};

use super::prepare::Prepared;
use crate::{
    method::{Method, TrainedModel as _},
    run_file::SavedForm,
};

/// Writes what was trained; what was there before is replaced only by a whole.
pub(super) fn publish<M: Method>(prepared: &Prepared<M>, model: M::Model) -> Result<()> {
    let (run, directory) = (&prepared.run, &prepared.directory);
    let (base, out) = (run.model.display().to_string(), run.out.display());
    match run.saved_form() {
        None => directory.publish(|place| write_model(prepared, &model, place))?,
        Some(SavedForm::Adapter) => {
            directory.publish(|place| model.save_adapter(place, &base))?;
            println!("wrote the adapter to {out}");
            return Ok(());
        }
        Some(form) => {
            if form == SavedForm::Both {
                let beside = directory.path().join("adapter");
                fs::create_dir_all(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
                model.save_adapter(&beside, &base)?;
                println!("wrote the adapter to {}", beside.display());
            }
            let merged = model.merge()?;
            directory.publish(|place| write_model(prepared, &merged, place))?;
        }
    }
    println!("wrote the model to {out}");
    Ok(())
}

fn write_model<M: Method>(prepared: &Prepared<M>, model: &M::Model, place: &Path) -> Result<()> {
    let options = SaveOptions { dtype: prepared.run.save.dtype, ..SaveOptions::default() };
    model.save(&prepared.base.checkpoint, place, options)
}
