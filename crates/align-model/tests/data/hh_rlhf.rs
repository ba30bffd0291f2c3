//! Anthropic's transcripts, as they are published.

use std::path::PathBuf;

use align_model::data::{
    OnBadRow, PreferenceRecord, PromptRecord, SftRecord, SourceConfig, Transcript, read, stream,
};

/// The file, or nothing where it is not at hand.
fn source() -> Option<SourceConfig> {
    let Some(directory) = std::env::var_os("ALIGN_DATA_DIR") else {
        eprintln!("skipped: ALIGN_DATA_DIR is not set");
        return None;
    };
    let path = PathBuf::from(directory).join("hh_rlhf/harmless_base_test.jsonl.gz");
    Some(SourceConfig {
        transcript: Some(Transcript::Anthropic),
        on_bad_row: OnBadRow::Skip,
        ..SourceConfig::new(path.to_str().unwrap())
    })
}

#[test]
fn pairs_share_their_prompt_and_end_with_the_assistant() {
    let Some(source) = source() else { return };
    let data = read::<PreferenceRecord>(&source.into()).unwrap();
    assert_eq!(data.records.len() + data.skipped.count, 2312);
    // Rows in which the assistant speaks twice in a row.
    let lines: Vec<String> = data.skipped.first.iter().map(ToString::to_string).collect();
    assert!(lines.iter().all(|line| line.contains("expected speakers to alternate")), "{lines:#?}");
    assert_eq!(data.skipped.count, 9);
    for located in &data.records {
        let PreferenceRecord::Chat { prompt, chosen, rejected, .. } = &located.record else {
            panic!("{}: not a conversation", located.line)
        };
        assert_eq!((chosen.len(), rejected.len()), (1, 1), "{}", located.line);
        for (index, message) in prompt.iter().chain(chosen).enumerate() {
            assert_eq!(message.role(), if index % 2 == 0 { "user" } else { "assistant" }, "{}", located.line);
            assert_eq!(message.text(), message.text().trim());
        }
        assert_eq!(rejected[0].role(), "assistant");
        assert_ne!(chosen, rejected);
    }
}

#[test]
fn they_read_as_demonstrations_and_as_texts() {
    let Some(source) = source() else { return };
    let sft = read::<SftRecord>(&source.clone().column("messages", "chosen").into()).unwrap();
    assert_eq!(sft.records.len(), 2304);
    let plain = SourceConfig { transcript: None, ..source.clone() };
    assert_eq!(read::<PreferenceRecord>(&plain.into()).unwrap().records.len(), 2312);
    let prompts = stream::<PromptRecord>(&source.column("prompt", "rejected").into()).unwrap();
    assert_eq!(prompts.flatten().count(), 2307);
}
