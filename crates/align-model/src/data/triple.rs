//! Pairs with a third completion that is better than both.

use super::{Form, PreferenceRecord, Record, RecordError, Row, messages::require_assistant};
use crate::chat::Message;

/// A pair, and beside it a completion that is to be imitated, where the row has one.
#[derive(Debug, Clone, PartialEq)]
pub struct TripleRecord {
    /// The prompt and the two completions that are compared.
    pub pair: PreferenceRecord,
    /// The column `reference`, of the same form as the other completions and without the prompt.
    pub gold: Option<GoldCompletion>,
}

/// A completion that is to be imitated.
#[derive(Debug, Clone, PartialEq)]
pub enum GoldCompletion {
    /// A text.
    Text(String),
    /// Messages, at least one of them the assistant's.
    Chat(Vec<Message>),
}

impl Record for TripleRecord {
    /// Where the prompt is what `chosen` and `rejected` have in common, `reference` begins with it as well, as in TRL. A
    /// column `reference` that is no completion of the prompt is passed over: only some objectives look for one.
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        let named = row.has("prompt");
        let pair = PreferenceRecord::from_row(row)?;
        let is_implicit = !named || row.has("prompt");
        let gold = match &pair {
            PreferenceRecord::Text { prompt, .. } => text(row, prompt, is_implicit),
            PreferenceRecord::Chat { prompt, .. } => messages(row, prompt, is_implicit),
        };
        Ok(Self { pair, gold })
    }
}

fn text(row: &mut Row, prompt: &str, is_implicit: bool) -> Option<GoldCompletion> {
    if row.form("reference") != Ok(Form::Text) {
        return None;
    }
    let whole = row.take_text("reference").ok()?;
    let completion = if is_implicit { whole.strip_prefix(prompt)?.to_owned() } else { whole };
    Some(GoldCompletion::Text(completion))
}

fn messages(row: &mut Row, prompt: &[Message], is_implicit: bool) -> Option<GoldCompletion> {
    let whole = row.take_messages_if_any("reference")?;
    let completion = if is_implicit { whole.strip_prefix(prompt)?.to_vec() } else { whole };
    require_assistant("reference", &completion).ok()?;
    Some(GoldCompletion::Chat(completion))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gold(row: &Value) -> Option<GoldCompletion> {
        let mut row = Row::new(row.as_object().unwrap().clone());
        TripleRecord::from_row(&mut row).unwrap().gold
    }

    #[test]
    fn a_text_is_completed_by_a_third_one() {
        let explicit = json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " brown.",
                              "reference": " azure."});
        let expected = Some(GoldCompletion::Text(" azure.".into()));
        assert_eq!(gold(&explicit), expected);
        let implicit = json!({"chosen": "The sky is blue.", "rejected": "The sky is green.",
                              "reference": "The sky is azure."});
        assert_eq!(gold(&implicit), expected, "the prompt is stripped");
        let elsewhere = json!({"chosen": "The sky is blue.", "rejected": "The sky is green.",
                               "reference": "It is azure."});
        assert_eq!(gold(&elsewhere), None);
    }

    #[test]
    fn a_conversation_goes_on_in_a_third_way() {
        let user = || Message::user("Sky?");
        let [blue, green, azure] = ["Blue.", "Green.", "Azure."].map(Message::assistant);
        let expected = Some(GoldCompletion::Chat(vec![azure.clone()]));
        let explicit =
            json!({"prompt": [user()], "chosen": [blue], "rejected": [green], "reference": [azure]});
        assert_eq!(gold(&explicit), expected);
        let implicit = json!({"chosen": [user(), blue], "rejected": [user(), green],
                              "reference": [user(), azure]});
        assert_eq!(gold(&implicit), expected);
        let repeated = json!({"prompt": "Sky?", "chosen": [user(), blue], "rejected": [user(), green],
                              "reference": [user(), azure]});
        assert_eq!(gold(&repeated), expected);
    }

    #[test]
    fn what_is_no_completion_stays_an_extra_column() {
        for other in [json!(7), json!([1, 2]), json!([{"role": "user", "content": "a"}])] {
            let columns = json!({"prompt": "a", "chosen": "b", "rejected": "c", "reference": other});
            let mut row = Row::new(columns.as_object().unwrap().clone());
            assert_eq!(TripleRecord::from_row(&mut row).unwrap().gold, None);
            assert_eq!(row.into_rest()["reference"], other);
        }
        assert_eq!(gold(&json!({"prompt": "a", "chosen": "b", "rejected": "c"})), None);
    }
}
