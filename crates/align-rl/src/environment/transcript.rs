//! A conversation as tokens that only grow.

use align_model::{
    chat::{ChatError, ChatTemplates, Message, RenderOptions},
    generate::{Finish, Generation},
    logprob::Support,
    tokenizer::{SpecialTokenText, SpecialTokens, Tokenizer, TokenizerError},
};
use serde_json::Value;

/// What turns conversations into tokens.
#[derive(Debug, Clone, Copy)]
pub struct ConversationTokenizer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat templates.
    pub templates: &'a ChatTemplates,
    /// The template, what it is told of the date, and its variables. Whether an answer begins is decided by the
    /// conversation.
    pub render: &'a RenderOptions,
}

/// A conversation could not be put into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// It could not be rendered.
    #[error("the conversation cannot be rendered")]
    Chat(#[from] ChatError),
    /// A text could not be tokenised, or tokens not decoded.
    #[error("the conversation cannot be tokenised")]
    Tokenizer(#[from] TokenizerError),
    /// The template writes what was said before in another way once something follows it.
    #[error(
        "the chat template is not append-only: after turn {turn} it writes {found:?} where it had written {expected:?}; use a \
         template that renders earlier messages as it did when they were the last"
    )]
    NotAppendOnly {
        /// The turn of the policy; the first is 1.
        turn: usize,
        /// How the earlier text goes on from where they part.
        expected: String,
        /// How the later text does.
        found: String,
    },
}

/// A conversation while it goes on.
#[derive(Debug)]
pub(super) struct Transcript<'a> {
    with: ConversationTokenizer<'a>,
    tools: Vec<Value>,
    pub(super) messages: Vec<Message>,
    /// The text of the messages, up to where the policy's turn begins.
    text: String,
    pub(super) turns: usize,
    /// Where in `tokens` the policy's last turn begins.
    pub(super) last_turn: usize,
    pub(super) prompt: Vec<u32>,
    pub(super) tokens: Vec<u32>,
    pub(super) is_action: Vec<bool>,
    pub(super) log_probs: Vec<f32>,
    pub(super) supports: Option<Vec<Support>>,
}

/// What follows a turn of the policy.
#[derive(Debug)]
pub(super) struct Following {
    messages: Vec<Message>,
    text: String,
    pub(super) tokens: Vec<u32>,
}

/// How a rendered conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// With what begins the policy's turn.
    AnswerBegins,
    /// With the last message's text.
    Open,
}

impl ConversationTokenizer<'_> {
    fn text(&self, messages: &[Message], tools: &[Value], ending: Ending) -> Result<String, ChatError> {
        let options = RenderOptions {
            add_generation_prompt: ending == Ending::AnswerBegins,
            continue_final_message: ending == Ending::Open,
            ..self.render.clone()
        };
        let tools = Some(tools).filter(|tools| !tools.is_empty());
        Ok(self.templates.render(messages, tools, &options)?.text)
    }
}

impl<'a> Transcript<'a> {
    pub(super) fn new(
        with: ConversationTokenizer<'a>,
        messages: Vec<Message>,
        tools: &[Value],
    ) -> Result<Self, TranscriptError> {
        let text = with.text(&messages, tools, Ending::AnswerBegins)?;
        let prompt = with.tokenizer.encode(&text, SpecialTokens::Omit)?;
        Ok(Self {
            with,
            tools: tools.to_vec(),
            messages,
            text,
            turns: 0,
            last_turn: 0,
            prompt,
            tokens: Vec::new(),
            is_action: Vec::new(),
            log_probs: Vec::new(),
            supports: None,
        })
    }

    /// What a model is given to continue.
    pub(super) fn history(&self) -> Vec<u32> {
        [&self.prompt[..], &self.tokens].concat()
    }

    /// Takes what the policy said. Returns it as text, without the token that ended it.
    pub(super) fn act(&mut self, generation: Generation) -> Result<String, TranscriptError> {
        let said = match (generation.finish, generation.tokens.split_last()) {
            (Finish::StopToken(_), Some((_, said))) => said,
            _ => &generation.tokens,
        };
        // Marks of tool calls are special tokens of some tokenizers.
        let text = self.with.tokenizer.decode(said, SpecialTokenText::Keep)?;
        self.last_turn = self.tokens.len();
        self.tokens.extend(generation.tokens);
        self.is_action.resize(self.tokens.len(), true);
        self.log_probs.extend(generation.log_probs);
        if let Some(supports) = generation.supports {
            self.supports.get_or_insert_default().extend(supports);
        }
        self.messages.push(Message::assistant(text.as_str()));
        self.turns += 1;
        Ok(text)
    }

    /// What stands between the policy's turn and its next one. `end_tokens` are those that end a turn.
    pub(super) fn following(
        &self,
        replies: Vec<Message>,
        end_tokens: &[u32],
    ) -> Result<Following, TranscriptError> {
        let said = self.with.text(&self.messages, &self.tools, Ending::Open)?;
        // A template that trims may take away the end of what begins the turn, if the turn is empty.
        if said.trim_end() != self.text.trim_end() {
            self.check(&self.text, &said)?;
        }
        let mut messages = self.messages.clone();
        messages.extend(replies);
        let text = self.with.text(&messages, &self.tools, Ending::AnswerBegins)?;
        self.check(&self.text, &text)?;
        self.check(&said, &text)?;
        let rest = &text[said.len().max(self.text.len())..];
        let mut tokens = self.with.tokenizer.encode(rest, SpecialTokens::Omit)?;
        // The policy has ended its turn itself: its token stands in the place of the template's.
        let ends = |token: Option<&u32>| token.is_some_and(|token| end_tokens.contains(token));
        if ends(self.tokens.last()) && ends(tokens.first()) {
            tokens.remove(0);
        }
        Ok(Following { messages, text, tokens })
    }

    /// Appends what follows the policy's turn.
    pub(super) fn observe(&mut self, following: Following) {
        let Following { messages, text, tokens } = following;
        self.tokens.extend(tokens);
        self.is_action.resize(self.tokens.len(), false);
        (self.messages, self.text) = (messages, text);
    }

    fn check(&self, earlier: &str, later: &str) -> Result<(), TranscriptError> {
        if later.starts_with(earlier) {
            return Ok(());
        }
        let same = earlier.char_indices().zip(later.chars()).take_while(|((_, a), b)| a == b);
        let parted = same.last().map_or(0, |((at, a), _)| at + a.len_utf8());
        let beginning = |text: &str| text[parted..].chars().take(SHOWN).collect::<String>();
        Err(TranscriptError::NotAppendOnly {
            turn: self.turns,
            expected: beginning(earlier),
            found: beginning(later),
        })
    }
}

/// Characters of a text that an error shows.
const SHOWN: usize = 40;
