//! The Hub as this machine's user has it: settings from the environment, progress on the terminal.

use std::{
    env, fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use align_model::hub::{Access, DownloadEvent, Hub, HubSettings, Location, Secret};
use anyhow::{Context as _, Result};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

/// Where a model is on this machine: a path as it stands, a model of the Hub where it was downloaded to.
pub(crate) fn model_path(name: &Path) -> Result<PathBuf> {
    match Location::of(&name.to_string_lossy())? {
        Location::Local(path) => Ok(path),
        Location::Hub(reference) => {
            let hub = Hub::new(settings(variable, env::home_dir()))?;
            let model = hub.model(&reference, &mut DownloadDisplay::default().listener());
            Ok(model.with_context(|| absent("model", name))?.path)
        }
    }
}

/// The files of a data set: a path as it stands, a data set of the Hub where it was downloaded to.
pub(crate) fn data_files(name: &Path) -> Result<Vec<PathBuf>> {
    match Location::of(&name.to_string_lossy())? {
        Location::Local(path) => Ok(vec![path]),
        Location::Hub(reference) => {
            let hub = Hub::new(settings(variable, env::home_dir()))?;
            let data = hub.dataset(&reference, &mut DownloadDisplay::default().listener());
            Ok(data.with_context(|| absent("data", name))?.files)
        }
    }
}

fn absent(what: &str, name: &Path) -> String {
    let name = name.display();
    format!("there is no {what} {name} on this machine, and the Hub does not give it either")
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The variables that Python's `huggingface_hub` reads, and what it takes where they are absent.
fn settings(variable: impl Fn(&str) -> Option<String>, user: Option<PathBuf>) -> HubSettings {
    let user = user.unwrap_or_else(|| PathBuf::from("."));
    let caches = variable("XDG_CACHE_HOME").map_or_else(|| user.join(".cache"), PathBuf::from);
    let home = variable("HF_HOME").map_or_else(|| caches.join("huggingface"), PathBuf::from);
    let cache = variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
    let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
    let kept = || fs::read_to_string(token_file).ok().map(|token| token.trim().to_owned());
    let token = variable("HF_TOKEN").or_else(kept).filter(|token| !token.is_empty());
    let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
    let base = HubSettings::new(cache);
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| base.endpoint.clone());
    HubSettings {
        token: token.map(Secret::new),
        access: if offline { Access::Offline } else { Access::Online },
        proxy: proxy(&variable, &endpoint).map(Secret::new),
        endpoint,
        ..base
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
}

/// The proxy for an address, by the usual variables.
fn proxy(variable: impl Fn(&str) -> Option<String>, endpoint: &str) -> Option<String> {
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase()));
    let (scheme, rest) = endpoint.split_once("://")?;
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let is_exempt = |entry: &str| {
        let entry = entry.trim().trim_start_matches("*.").trim_start_matches('.');
        entry == "*" || entry == host || (!entry.is_empty() && host.ends_with(&format!(".{entry}")))
    };
    if either("NO_PROXY").is_some_and(|exempt| exempt.split(',').any(is_exempt)) {
        return None;
    }
    either(if scheme == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" }).or_else(|| either("ALL_PROXY"))
}

/// A bar for every file on a terminal; elsewhere a line where it begins, at every tenth, and where it ends.
#[derive(Debug, Default)]
struct DownloadDisplay {
    bar: Option<ProgressBar>,
    file: String,
    size: Option<u64>,
    arrived: u64,
}

/// A smaller file needs no lines on its way.
const LONG: u64 = 50_000_000;

impl DownloadDisplay {
    fn listener(mut self) -> impl FnMut(DownloadEvent<'_>) {
        move |event| self.show(event)
    }

    fn show(&mut self, event: DownloadEvent<'_>) {
        match event {
            DownloadEvent::Started { file, size, present } => self.start(file, size, present),
            DownloadEvent::Advanced { bytes } => self.advance(bytes),
            DownloadEvent::Restarted => {
                self.arrived = 0;
                self.bar.iter().for_each(ProgressBar::reset);
            }
            DownloadEvent::Waiting { reason, pause } => {
                self.say(&format!("{reason}; trying again in {}", HumanDuration(pause)));
            }
            DownloadEvent::Shared { file } => {
                self.say(&format!("waiting for another program that downloads {file}"));
            }
            DownloadEvent::Finished { file } => match self.bar.take() {
                Some(bar) => bar.finish(),
                None => eprintln!("downloaded {file}"),
            },
            DownloadEvent::Cached { reason } => {
                self.say(&format!("note: {reason}; going on with what was downloaded before"));
            }
            _ => {}
        }
    }

    fn start(&mut self, file: &str, size: Option<u64>, present: u64) {
        (self.file, self.size, self.arrived) = (file.to_owned(), size, present);
        if !std::io::stderr().is_terminal() {
            let all = size.map_or_else(String::new, |size| format!(" ({})", HumanBytes(size)));
            let rest = if present > 0 { format!(", from {} on", HumanBytes(present)) } else { String::new() };
            eprintln!("downloading {file}{all}{rest}");
            return;
        }
        let style = ProgressStyle::with_template(
            "{msg}  {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style);
        bar.set_message(file.to_owned());
        bar.set_position(present);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self, bytes: u64) {
        let before = self.arrived;
        self.arrived += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.arrived);
            return;
        }
        let Some(size) = self.size.filter(|&size| size >= LONG) else { return };
        let (tenth, arrived) = (size / 10, HumanBytes(self.arrived));
        if self.arrived / tenth > before / tenth && self.arrived < size {
            eprintln!("downloading {}: {arrived} of {}", self.file, HumanBytes(size));
        }
    }

    /// A line that a bar does not overwrite.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> HubSettings {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        settings(variable, Some("/home/me".into()))
    }

    #[test]
    fn the_environment_decides() {
        let usual = with(&[]);
        assert_eq!(usual, HubSettings::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/c")]).cache, Path::new("/c/huggingface/hub"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/c"), ("HF_HOME", "/hf")]).cache, Path::new("/hf/hub"));
        assert_eq!(with(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]).cache, Path::new("/hub"));
        assert_eq!(with(&[("HF_ENDPOINT", "https://mirror.example")]).endpoint, "https://mirror.example");
        for (value, access) in [("1", Access::Offline), ("TRUE", Access::Offline), ("0", Access::Online)] {
            assert_eq!(with(&[("HF_HUB_OFFLINE", value)]).access, access);
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let home = tempfile::tempdir().unwrap();
        let (path, file) = (home.path().to_str().unwrap(), home.path().join("token"));
        assert_eq!(with(&[("HF_HOME", path)]).token, None);
        fs::write(&file, "hf_file\n").unwrap();
        assert_eq!(with(&[("HF_HOME", path)]).token, Some(Secret::new("hf_file")));
        assert_eq!(with(&[("HF_TOKEN_PATH", file.to_str().unwrap())]).token, Some(Secret::new("hf_file")));
        assert_eq!(with(&[("HF_HOME", path), ("HF_TOKEN", "hf_own")]).token, Some(Secret::new("hf_own")));
    }

    #[test]
    fn a_proxy_is_for_some_addresses() {
        let both = [("HTTPS_PROXY", "http://p:1"), ("no_proxy", "localhost,.corp.example")];
        assert_eq!(with(&both).proxy, Some(Secret::new("http://p:1")));
        for exempt in ["https://hub.corp.example", "http://localhost:8080", "http://huggingface.co"] {
            assert_eq!(with(&[both[0], both[1], ("HF_ENDPOINT", exempt)]).proxy, None, "{exempt}");
        }
        assert_eq!(with(&[("all_proxy", "socks5://p")]).proxy, Some(Secret::new("socks5://p")));
    }

    #[test]
    fn a_path_stays_a_path() {
        assert_eq!(model_path(Path::new("models/x.gguf")).unwrap(), Path::new("models/x.gguf"));
        assert_eq!(data_files(Path::new("train.jsonl")).unwrap(), [Path::new("train.jsonl")]);
        assert!(model_path(Path::new("owner/name@")).is_err());
    }
}
