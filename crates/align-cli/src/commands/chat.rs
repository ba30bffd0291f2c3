//! `align chat`: talks with a model.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use align_model::{chat::Message, generate::GenerationConfig};
use anyhow::{Context as _, Result, ensure};
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::json;

use crate::{args::ChatArguments, commands::generate::stream, model::LoadedModel, prompts};

const HELP: &str = "/reset, /system TEXT, /save FILE, /help, /exit; see `align chat --help`";

/// Answers line by line until the input ends.
pub(crate) fn run(args: &ChatArguments) -> Result<()> {
    let model = LoadedModel::load(&args.model)?;
    ensure!(
        model.templates.is_some(),
        "{} has no chat template: put a chat_template.jinja next to its tokenizer.json, or use `align generate`",
        args.model.model.display()
    );
    let config = args.generation.config(model.end_tokens.clone(), NonZeroUsize::MIN);
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut chat = Chat {
        model,
        config,
        system: args.system.clone(),
        messages: Vec::new(),
        interrupted: interrupted.clone(),
    };
    let mut input = Input::new()?;
    if input.is_terminal() {
        ctrlc::set_handler(move || interrupted.store(true, Ordering::Relaxed))
            .context("cannot listen for Ctrl-C")?;
        eprintln!("{HELP}");
    }
    while let Some(line) = input.line()? {
        match chat.take(line.trim()) {
            Ok(Next::GoOn) => {}
            Ok(Next::End) => break,
            // The conversation is as it was before this line; the next one may fare better.
            Err(error) => eprintln!("{}", crate::explained(&error)),
        }
    }
    Ok(())
}

/// What follows a line.
enum Next {
    GoOn,
    End,
}

/// A conversation.
struct Chat {
    model: LoadedModel,
    config: GenerationConfig,
    system: Option<String>,
    messages: Vec<Message>,
    /// Set by Ctrl-C.
    interrupted: Arc<AtomicBool>,
}

impl Chat {
    fn take(&mut self, line: &str) -> Result<Next> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, rest.trim()) {
            ("", _) => {}
            ("/exit" | "/quit", "") => return Ok(Next::End),
            ("/reset", "") => self.messages.clear(),
            ("/system", text) => {
                self.system = (!text.is_empty()).then(|| text.to_owned());
                self.messages.clear();
            }
            ("/save", file) => self.save(file)?,
            (command, _) if command.starts_with('/') => eprintln!("{HELP}"),
            _ => self.answer(line)?,
        }
        Ok(Next::GoOn)
    }

    fn answer(&mut self, line: &str) -> Result<()> {
        let mut messages = self.messages.clone();
        messages.push(Message::user(line));
        let prompt = prompts::render(&self.model, self.system.as_deref(), &messages)?;
        self.interrupted.store(false, Ordering::Relaxed);
        let text = stream(&self.model, &[prompt], &self.config, || self.interrupted.load(Ordering::Relaxed))?;
        messages.push(Message::assistant(text));
        self.messages = messages;
        // Another turn, other random numbers.
        self.config.seed = self.config.seed.wrapping_add(1);
        Ok(())
    }

    fn save(&self, file: &str) -> Result<()> {
        ensure!(!file.is_empty(), "/save needs a file: /save talk.jsonl");
        ensure!(!self.messages.is_empty(), "nothing has been said yet");
        let system = self.system.as_deref().map(Message::system);
        let messages: Vec<&Message> = system.iter().chain(&self.messages).collect();
        let mut lines = std::fs::File::options()
            .append(true)
            .create(true)
            .open(Path::new(file))
            .with_context(|| format!("cannot write {file}"))?;
        writeln!(lines, "{}", json!({ "messages": messages }))
            .with_context(|| format!("cannot write {file}"))?;
        eprintln!("appended to {file}");
        Ok(())
    }
}

/// Where lines come from.
enum Input {
    Terminal(Box<DefaultEditor>),
    Piped,
}

impl Input {
    fn new() -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Piped);
        }
        Ok(Self::Terminal(Box::new(DefaultEditor::new().context("cannot read from the terminal")?)))
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; `None` where there is no more.
    fn line(&mut self) -> Result<Option<String>> {
        let editor = match self {
            Self::Terminal(editor) => editor,
            Self::Piped => return Ok(std::io::stdin().lock().lines().next().transpose()?),
        };
        match editor.readline("> ") {
            Ok(line) => {
                editor.add_history_entry(&line)?;
                Ok(Some(line))
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
            Err(error) => Err(error).context("cannot read from the terminal"),
        }
    }
}
