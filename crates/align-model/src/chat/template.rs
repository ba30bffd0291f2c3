//! The templates of a model and how one renders a conversation.

use std::{ops::Range, sync::Arc};

use chrono::NaiveDateTime;
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use super::{
    ChatError, Message, continuation,
    environment::{RaisedByTemplate, environment, from_json},
    generation::GenerationTracker,
    source::{GENERATION_END, GENERATION_START, Source},
    strftime::format_date,
};
use crate::tokenizer::Tokenizer;

/// How a conversation is rendered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RenderOptions {
    /// Whether the header of a new assistant message follows, for the model to write it.
    pub add_generation_prompt: bool,
    /// Whether the last message stays open, for the model to continue it.
    pub continue_final_message: bool,
    /// The template to use; `None` takes `tool_use` where tools are given and it exists, else `default`.
    pub template: Option<String>,
    /// What a template that asks for the date is told.
    pub now: Option<NaiveDateTime>,
    /// Further variables of the template (`enable_thinking`, `documents` …); they win over special tokens.
    pub variables: Map<String, Value>,
}

impl RenderOptions {
    /// The options by which a model is asked for its next message.
    #[must_use]
    pub fn prompt() -> Self {
        Self { add_generation_prompt: true, ..Self::default() }
    }
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The character ranges that the template's generation blocks wrote.
    pub generation_spans: Vec<Range<usize>>,
}

/// One compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    name: String,
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
    generation_blocks: bool,
    misplaced_generation_block: bool,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    ///
    /// Where the source is not valid Jinja.
    pub fn new(name: impl Into<String>, source: impl Into<Arc<str>>) -> Result<Self, ChatError> {
        let (name, source) = (name.into(), source.into());
        let Source { text, generation_blocks, misplaced_generation_block } = Source::new(&source);
        let invalid = |error: Error| ChatError::Syntax {
            template: name.clone(),
            line: error.line().unwrap_or(0),
            reason: reason(&error),
        };
        let mut environment = environment().map_err(invalid)?;
        environment.add_template_owned(TEMPLATE, text).map_err(invalid)?;
        Ok(Self {
            name,
            source,
            environment: Arc::new(environment),
            generation_blocks,
            misplaced_generation_block,
        })
    }

    /// The template's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The template as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template marks what the assistant wrote.
    #[must_use]
    pub fn has_generation_blocks(&self) -> bool {
        self.generation_blocks
    }

    /// Whether a generation block lies where its place in the text cannot be told.
    pub(super) fn has_misplaced_generation_block(&self) -> bool {
        self.misplaced_generation_block
    }

    fn render(
        &self,
        variables: Map<String, Value>,
        now: Option<NaiveDateTime>,
    ) -> Result<Rendered, ChatError> {
        let tracker = Arc::new(GenerationTracker::default());
        let functions = [
            (GENERATION_START, tracker.start_function()),
            (GENERATION_END, tracker.end_function()),
            ("strftime_now", strftime_now(now)),
        ];
        let variables = variables.iter().map(|(name, value)| (name.as_str(), from_json(value)));
        let context = minijinja::Value::from_pairs(functions.into_iter().chain(variables));
        let mut bytes = Vec::new();
        let template = self.environment.get_template(TEMPLATE).map_err(|error| self.failure(&error))?;
        template
            .render_captured_to(context, tracker.writer(&mut bytes))
            .map(drop)
            .map_err(|error| self.failure(&error))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Rendered { text, generation_spans: tracker.spans() })
    }

    fn failure(&self, error: &Error) -> ChatError {
        let template = self.name.clone();
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(cause) = source {
            if let Some(RaisedByTemplate(message)) = cause.downcast_ref() {
                return ChatError::Raised { template, message: message.clone() };
            }
            match cause.downcast_ref() {
                Some(DateError::NoClock) => return ChatError::ClockMissing { template },
                Some(DateError::Format(format)) => {
                    return ChatError::DateFormat { template, format: format.clone() };
                }
                None => source = cause.source(),
            }
        }
        ChatError::Render { template, line: error.line().unwrap_or(0), reason: reason(error) }
    }
}

/// The templates that came with a model, and the special tokens that they may write.
#[derive(Debug, Clone)]
pub struct ChatTemplates {
    templates: Vec<ChatTemplate>,
    special_tokens: Map<String, Value>,
}

impl ChatTemplates {
    /// A model's only template.
    #[must_use]
    pub fn single(template: ChatTemplate, special_tokens: Map<String, Value>) -> Self {
        Self { templates: vec![template], special_tokens }
    }

    /// Several templates, told apart by their names.
    #[must_use]
    pub fn several(templates: Vec<ChatTemplate>, special_tokens: Map<String, Value>) -> Self {
        Self { templates, special_tokens }
    }

    /// The templates that came with a tokenizer.
    ///
    /// # Errors
    ///
    /// Where the tokenizer has none or one is not valid Jinja.
    pub fn from_tokenizer(tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let sources = tokenizer.chat_templates();
        if sources.is_empty() {
            return Err(ChatError::NoTemplate);
        }
        let templates = sources.iter().map(|(name, source)| ChatTemplate::new(name, source.as_str()));
        Ok(Self {
            templates: templates.collect::<Result<_, _>>()?,
            special_tokens: tokenizer.special_tokens().clone(),
        })
    }

    /// Every template.
    #[must_use]
    pub fn templates(&self) -> &[ChatTemplate] {
        &self.templates
    }

    /// The template of a name; without a name, `tool_use` where tools are given and it exists, else `default`.
    ///
    /// # Errors
    ///
    /// Where there is no such template, or several and no default.
    pub fn select(&self, name: Option<&str>, tools: Option<&[Value]>) -> Result<&ChatTemplate, ChatError> {
        let find = |name: &str| self.templates.iter().find(|template| template.name == name);
        if let Some(name) = name {
            return find(name).ok_or_else(|| ChatError::UnknownTemplate {
                name: name.to_owned(),
                available: self.names(),
            });
        }
        match self.templates.as_slice() {
            [] => Err(ChatError::NoTemplate),
            [only] if only.name == DEFAULT => Ok(only),
            _ => {
                let for_tools = tools.and_then(|_| find("tool_use"));
                for_tools
                    .or_else(|| find(DEFAULT))
                    .ok_or_else(|| ChatError::NoDefault { available: self.names() })
            }
        }
    }

    /// Renders a conversation.
    ///
    /// # Errors
    ///
    /// Where the conversation is empty, the options contradict each other, or the template refuses or fails.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Value]>,
        options: &RenderOptions,
    ) -> Result<Rendered, ChatError> {
        let template = self.select(options.template.as_deref(), tools)?;
        self.render_with(template, messages, tools, options)
    }

    pub(super) fn render_with(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        tools: Option<&[Value]>,
        options: &RenderOptions,
    ) -> Result<Rendered, ChatError> {
        if messages.is_empty() {
            return Err(ChatError::EmptyConversation);
        }
        if options.add_generation_prompt && options.continue_final_message {
            return Err(ChatError::PromptAndContinuation);
        }
        let mut messages: Vec<_> = messages.iter().map(Message::for_template).collect();
        let continued = options
            .continue_final_message
            .then(|| continuation::tag_final_message(&mut messages, &template.source))
            .transpose()?;
        let mut variables = Map::new();
        variables.insert("messages".into(), messages.into_iter().map(Value::Object).collect());
        variables.insert("tools".into(), tools.map_or(Value::Null, |tools| Value::Array(tools.to_vec())));
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), Value::Bool(options.add_generation_prompt));
        for (name, value) in self.special_tokens.iter().chain(&options.variables) {
            variables.insert(name.clone(), value.clone());
        }
        let mut rendered = template.render(variables, options.now)?;
        if let Some(final_message) = continued {
            rendered.text = continuation::cut_after(&rendered.text, &final_message)?;
            clip(&mut rendered);
        }
        Ok(rendered)
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.templates.iter().map(ChatTemplate::name).collect();
        names.join(", ")
    }
}

/// The name of the template that is taken where none is named.
const DEFAULT: &str = "default";

/// The name of the only template of an environment; a name without extension, so that nothing is escaped.
const TEMPLATE: &str = "chat";

#[derive(Debug, thiserror::Error)]
enum DateError {
    #[error("no time was given")]
    NoClock,
    #[error("the format {0:?} cannot be written")]
    Format(String),
}

fn strftime_now(now: Option<NaiveDateTime>) -> minijinja::Value {
    minijinja::Value::from_function(move |format: String| -> Result<String, Error> {
        let failed =
            |cause: DateError| Error::new(ErrorKind::InvalidOperation, cause.to_string()).with_source(cause);
        let now = now.ok_or_else(|| failed(DateError::NoClock))?;
        format_date(now, &format).ok_or_else(|| failed(DateError::Format(format)))
    })
}

/// What went wrong, in the engine's words.
fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Drops what a cut text no longer has from its spans.
fn clip(rendered: &mut Rendered) {
    let length = rendered.text.chars().count();
    rendered.generation_spans.retain(|span| span.start < length);
    for span in &mut rendered.generation_spans {
        span.end = span.end.min(length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn single(source: &str) -> ChatTemplates {
        ChatTemplates::single(ChatTemplate::new("default", source).unwrap(), Map::new())
    }

    fn render(source: &str, options: &RenderOptions) -> Result<String, ChatError> {
        single(source).render(&[Message::user("Hi")], None, options).map(|rendered| rendered.text)
    }

    fn plain(source: &str) -> Result<String, ChatError> {
        render(source, &RenderOptions::default())
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = ChatTemplate::new("rag", "a\n{% generation %}\n{% if %}").unwrap_err();
        assert!(
            matches!(&error, ChatError::Syntax { template, line: 3, .. } if template == "rag"),
            "{error}"
        );
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let error =
            plain("{% for m in messages %}{{ raise_exception('No ' ~ m.role) }}{% endfor %}").unwrap_err();
        assert!(matches!(&error, ChatError::Raised { message, .. } if message == "No user"), "{error}");
        let in_macro =
            plain("{% macro f() %}{{ raise_exception('No') }}{% endmacro %}{{ f() }}").unwrap_err();
        assert!(matches!(in_macro, ChatError::Raised { .. }), "{in_macro}");
    }

    #[test]
    fn a_failure_names_its_line() {
        for source in
            ["\n{{ messages.x.y }}", "\n{% for t in tools %}{% endfor %}", "\n{{ 'a' + 1 }}", "\n{{ f() }}"]
        {
            let error = plain(source).unwrap_err();
            assert!(matches!(error, ChatError::Render { line: 2, .. }), "{source}: {error}");
        }
    }

    #[test]
    fn the_date_comes_from_the_caller() {
        let source = "{{ strftime_now('%d %b %Y') }}";
        assert!(matches!(plain(source), Err(ChatError::ClockMissing { .. })));
        let now = chrono::NaiveDate::from_ymd_opt(2024, 7, 26).and_then(|day| day.and_hms_opt(0, 0, 0));
        let options = RenderOptions { now, ..RenderOptions::default() };
        assert_eq!(render(source, &options).unwrap(), "26 Jul 2024");
        assert!(matches!(render("{{ strftime_now('%Q') }}", &options), Err(ChatError::DateFormat { .. })));
    }

    #[test]
    fn an_empty_conversation_is_refused() {
        let error = single("a").render(&[], None, &RenderOptions::default()).unwrap_err();
        assert!(matches!(error, ChatError::EmptyConversation));
    }

    #[test]
    fn templates_are_chosen_as_in_transformers() {
        let template = |name: &str| ChatTemplate::new(name, name).unwrap();
        let templates = ChatTemplates::several(vec![template("default"), template("tool_use")], Map::new());
        let chosen = |tools: Option<&[Value]>, name: Option<&str>| {
            let options = RenderOptions { template: name.map(String::from), ..RenderOptions::default() };
            templates.render(&[Message::user("Hi")], tools, &options).map(|rendered| rendered.text)
        };
        assert_eq!(chosen(None, None).unwrap(), "default");
        assert_eq!(chosen(Some(&[json!({})]), None).unwrap(), "tool_use");
        assert_eq!(chosen(Some(&[json!({})]), Some("default")).unwrap(), "default");
        let error = chosen(None, Some("rag")).unwrap_err().to_string();
        assert_eq!(error, "there is no chat template `rag` (there are: default, tool_use)");
        let templates = ChatTemplates::several(vec![template("tool_use"), template("rag")], Map::new());
        assert!(matches!(templates.select(None, None), Err(ChatError::NoDefault { .. })));
        assert!(matches!(
            ChatTemplates::several(Vec::new(), Map::new()).select(None, None),
            Err(ChatError::NoTemplate)
        ));
    }

    #[test]
    fn variables_win_over_special_tokens() {
        let special_tokens = json!({"bos_token": "<s>", "eos_token": "</s>"}).as_object().unwrap().clone();
        let template =
            ChatTemplate::new("default", "{{ bos_token }}{{ eos_token }}{{ tools is none }}").unwrap();
        let variables = json!({"eos_token": "!"}).as_object().unwrap().clone();
        let options = RenderOptions { variables, ..RenderOptions::default() };
        let rendered =
            ChatTemplates::single(template, special_tokens).render(&[Message::user("a")], None, &options);
        assert_eq!(rendered.unwrap().text, "<s>!True");
    }

    #[test]
    fn a_message_can_be_continued() {
        let kept = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}";
        let trimmed = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}</s>{% endfor %}";
        let messages = [Message::user("Hi"), Message::assistant("One, ")];
        let options = RenderOptions { continue_final_message: true, ..RenderOptions::default() };
        let text =
            |source: &str| single(source).render(&messages, None, &options).map(|rendered| rendered.text);
        assert_eq!(text(kept).unwrap(), "user: Hi</s>assistant: One, ");
        assert_eq!(text(trimmed).unwrap(), "user: Hi</s>assistant: One,");
        assert!(matches!(text("{{ messages[0].content }}"), Err(ChatError::FinalMessageLost { .. })));
        assert!(matches!(text("{{ messages }}"), Err(ChatError::NothingToContinue { .. })));
        let both = RenderOptions { add_generation_prompt: true, ..options.clone() };
        assert!(matches!(render(kept, &both), Err(ChatError::PromptAndContinuation)));
        let silent = [Message::user("Hi"), Message::assistant("").with("content", Value::Null)];
        let error = single(kept).render(&silent, None, &options).unwrap_err();
        assert!(matches!(error, ChatError::NothingToContinue { .. }));
    }

    #[test]
    fn spans_count_characters() {
        let source = "é{% for m in messages %}\n  {%- generation %} {{ m.content }}ü{% endgeneration %}.\n{% endfor %}";
        let rendered = single(source).render(&[Message::user("ä")], None, &RenderOptions::default()).unwrap();
        assert_eq!(rendered.text, "é äü.\n");
        assert_eq!(rendered.generation_spans, std::slice::from_ref(&(1..4)));
    }
}
