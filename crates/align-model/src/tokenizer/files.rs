//! A tokenizer's files: read as they come from elsewhere, written so that `transformers` reads them again.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Tokenizer, TokenizerConfig, TokenizerError};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";
const TEMPLATE_DIRECTORY: &str = "additional_chat_templates";
const PROCESSOR_TEMPLATE: &str = "chat_template.json";

pub(super) fn read(directory: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = directory.join(TOKENIZER);
    let bytes =
        read_optional(&path)?.ok_or_else(|| TokenizerError::Missing { directory: directory.to_owned() })?;
    let tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
        .map_err(|e| TokenizerError::Malformed { path, reason: format!("not a valid tokenizer: {e}") })?;
    let config_path = directory.join(CONFIG);
    let mut config = TokenizerConfig::new(read_json(&config_path)?.unwrap_or_default(), &config_path)?;
    let special_path = directory.join(SPECIAL_TOKENS);
    if let Some(Value::Object(map)) = read_json(&special_path)? {
        config.fill_special_tokens(&map, &special_path)?;
    }
    let templates = template_files(directory)?;
    if !templates.is_empty() {
        config.set_templates(templates);
    } else if config.chat_templates.is_empty() {
        let path = directory.join(PROCESSOR_TEMPLATE);
        if let Some(Value::String(template)) =
            read_json(&path)?.and_then(|json| json.get("chat_template").cloned())
        {
            config.set_default_template(template);
        }
    }
    Tokenizer::from_config(tokenizer, config)
}

pub(super) fn write(tokenizer: &Tokenizer, directory: &Path) -> Result<(), TokenizerError> {
    let config = &tokenizer.inner.config;
    let named_templates: Vec<_> =
        config.chat_templates.iter().filter(|(name, _)| name != "default").collect();
    for (name, _) in &named_templates {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            let (path, key) = (directory.join(CONFIG), "chat_template".to_owned());
            return Err(TokenizerError::Config { path, key, reason: format!("{name:?} cannot name a file") });
        }
    }
    make_directory(directory)?;
    let path = directory.join(TOKENIZER);
    let json = tokenizer.inner.tokenizer.to_string(true);
    let json = json.map_err(|e| TokenizerError::Tokenizer { reason: e.to_string() })?;
    write_file(&path, &json)?;
    let mut json = config.json.clone();
    json.entry("tokenizer_class").or_insert_with(|| json!("PreTrainedTokenizerFast"));
    let path = directory.join(CONFIG);
    let text = serde_json::to_string_pretty(&json)
        .map_err(|e| TokenizerError::Malformed { path: path.clone(), reason: e.to_string() })?;
    write_file(&path, &text)?;
    if let Some((_, source)) = config.chat_templates.iter().find(|(name, _)| name == "default") {
        write_file(&directory.join(TEMPLATE), source)?;
    }
    if !named_templates.is_empty() {
        make_directory(&directory.join(TEMPLATE_DIRECTORY))?;
    }
    for (name, source) in named_templates {
        write_file(&directory.join(TEMPLATE_DIRECTORY).join(format!("{name}.jinja")), source)?;
    }
    Ok(())
}

fn template_files(directory: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let mut templates = Vec::new();
    if let Some(source) = read_text(&directory.join(TEMPLATE))? {
        templates.push(("default".to_owned(), source));
    }
    let further = directory.join(TEMPLATE_DIRECTORY);
    let failed = |source| TokenizerError::Io { action: "read", path: further.clone(), source };
    let entries = match fs::read_dir(&further) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(templates),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()
        .map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    for path in paths {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(source) = read_text(&path)? {
            templates.push((name, source));
        }
    }
    Ok(templates)
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io { action: "read", path: path.to_owned(), source }),
    }
}

fn read_text(path: &Path) -> Result<Option<String>, TokenizerError> {
    let text = read_optional(path)?.map(String::from_utf8).transpose();
    text.map_err(|e| TokenizerError::Malformed {
        path: path.to_owned(),
        reason: format!("not UTF-8 text: {e}"),
    })
}

fn read_json(path: &Path) -> Result<Option<Value>, TokenizerError> {
    let json = read_optional(path)?.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    json.map_err(|e| TokenizerError::Malformed {
        path: path.to_owned(),
        reason: format!("not valid JSON: {e}"),
    })
}

fn make_directory(directory: &Path) -> Result<(), TokenizerError> {
    fs::create_dir_all(directory).map_err(|source| TokenizerError::Io {
        action: "write",
        path: directory.to_owned(),
        source,
    })
}

/// Writes a file beside its place and moves it there, so that nobody sees half of it.
fn write_file(path: &Path, text: &str) -> Result<(), TokenizerError> {
    let failed = |source| TokenizerError::Io { action: "write", path: path.to_owned(), source };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
