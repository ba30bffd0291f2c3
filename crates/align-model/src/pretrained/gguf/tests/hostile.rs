//! Files that are truncated, contradict themselves or were made to do harm.

use proptest::prelude::*;

use crate::pretrained::gguf::GgufModel;
use crate::pretrained::gguf::fixture::{Field, Fixture, RawTensor, file_of};
use crate::pretrained::{LoadError, WeightSource};

fn open(bytes: &[u8]) -> Result<GgufModel, LoadError> {
    GgufModel::open(file_of(bytes).path())
}

fn refused(bytes: &[u8], reason: &str) {
    let error = open(bytes).unwrap_err();
    assert!(matches!(error, LoadError::Malformed { format: "GGUF", .. }), "{error}");
    assert!(error.to_string().contains(reason), "{error} does not mention {reason:?}");
}

fn refused_tensor(dimensions: &[u64], code: u32, data: usize, reason: &str) {
    let mut fixture = Fixture::new("llama");
    let tensor = RawTensor {
        name: "output.weight".to_owned(),
        dimensions: dimensions.to_vec(),
        code,
        data: vec![0; data],
    };
    fixture.tensors.push(tensor);
    refused(&fixture.bytes(), reason);
}

/// A file in which a metadata value is of type `code` and consists of `payload`.
fn with_value(code: u32, payload: &[u8]) -> Vec<u8> {
    Fixture::new("llama").field("hostile", Field::Raw(code, payload.to_vec())).bytes()
}

fn array(element: u32, count: u64) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes()[..]].concat()
}

#[test]
fn wrong_magic_and_versions_are_refused() {
    let bytes = Fixture::new("llama").bytes();
    refused(b"", "ends within the magic number");
    refused(b"GGU", "ends within the magic number");
    refused(&[b"ggml", &bytes[4..]].concat(), "does not begin with `GGUF`");
    refused(&[b"FUGG", &bytes[4..]].concat(), "does not begin with `GGUF`");
    for version in [0_u32, 1, 4, 0x0300_0000] {
        refused(&[&bytes[..4], &version.to_le_bytes(), &bytes[8..]].concat(), "version");
    }
    let mut second = bytes;
    second[4] = 2;
    assert!(open(&second).is_ok());
}

#[test]
fn counts_beyond_the_file_are_refused() {
    let bytes = Fixture::new("llama").bytes();
    for count in [1_u64 << 20, 1 << 40, u64::MAX] {
        refused(&[&bytes[..8], &count.to_le_bytes(), &bytes[16..]].concat(), "tensors");
        refused(&[&bytes[..16], &count.to_le_bytes(), &bytes[24..]].concat(), "metadata entries");
    }
}

#[test]
fn lengths_beyond_the_file_are_refused() {
    for length in [1_u64 << 16, 1 << 30, 1 << 62, u64::MAX] {
        refused(&with_value(8, &length.to_le_bytes()), "hostile");
        for element in [0, 4, 8, 9, 12] {
            refused(&with_value(9, &array(element, length)), "hostile");
        }
    }
    let nested = (0..64).flat_map(|_| array(9, 1)).collect::<Vec<_>>();
    refused(&with_value(9, &nested), "nested");
    refused(&with_value(13, &[]), "13 is not a type");
    refused(&with_value(9, &array(99, 1)), "99 is not a type");
    refused(&with_value(7, &[2]), "bool");
}

#[test]
fn strings_that_are_not_utf8_are_refused() {
    let mut payload = 2_u64.to_le_bytes().to_vec();
    payload.extend([0xC3, 0x28]);
    refused(&with_value(8, &payload), "not UTF-8");
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    refused_tensor(&[], 0, 0, "0 dimensions");
    refused_tensor(&[1, 1, 1, 1, 1], 0, 4, "5 dimensions");
    refused_tensor(&[4, 0], 0, 0, "size 0");
    refused_tensor(&[0], 0, 0, "size 0");
    refused_tensor(&[1 << 40, 1 << 40], 0, 64, "more values");
    refused_tensor(&[u64::MAX], 0, 64, "more values");
    refused_tensor(&[1 << 62], 0, 64, "more values");
    refused_tensor(&[1 << 60], 0, 64, "outside the file");
    refused_tensor(&[4, 9], 0, 64, "outside the file");
    refused_tensor(&[16, 2], 8, 34, "whole number of blocks");
}

#[test]
fn offsets_outside_the_file_are_refused() {
    let fixture = Fixture::new("llama");
    let bytes = fixture.bytes();
    let data: u64 = fixture.tensors[0].data.len() as u64;
    let head = bytes.len() - data as usize;
    let end_of_directory = (head - 31..=head)
        .find(|&end| bytes[end - 12..end] == [0; 12] && bytes[end - 20..end - 12] == 8_u64.to_le_bytes())
        .unwrap();
    for (offset, reason) in
        [(1_u64 << 20, "outside"), (u64::MAX - 31, "outside"), (32, "outside"), (8, "alignment")]
    {
        let mut moved = bytes.clone();
        moved[end_of_directory - 8..end_of_directory].copy_from_slice(&offset.to_le_bytes());
        refused(&moved, reason);
    }
}

#[test]
fn alignments_that_make_no_sense_are_refused() {
    for alignment in [0, 3, 33, u32::MAX] {
        let fixture = Fixture::new("llama").field("general.alignment", Field::U32(alignment));
        refused(&fixture.bytes(), "power of two");
    }
    let fixture = Fixture::new("llama").field("general.alignment", Field::Text("wide"));
    refused(&fixture.bytes(), "general.alignment");
}

#[test]
fn keys_and_tensors_that_occur_twice_are_refused() {
    let fixture = Fixture::new("llama").field("general.architecture", Field::Text("qwen2"));
    refused(&fixture.bytes(), "twice");
    refused(&Fixture::new("llama").counting("token_embd.weight", &[4, 4]).bytes(), "twice");
}

#[test]
fn formats_that_cannot_be_read_are_named() {
    for (code, name) in [(20, "IQ4_NL"), (26, "I32"), (15, "Q8_K"), (4242, "ggml type 4242")] {
        let mut fixture = Fixture::new("llama").counting("output.weight", &[8, 4]);
        fixture.tensors[1].code = code;
        let error = GgufModel::open(fixture.file().path()).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, LoadError::UnsupportedDtype { .. }), "{message}");
        assert!(message.contains(name) && message.contains("output.weight") && message.contains("Q4_K"));
    }
}

#[test]
fn heads_that_do_not_divide_the_rows_are_refused() {
    refused(&Fixture::new("llama").counting("blk.0.attn_q.weight", &[6, 4]).bytes(), "heads");
    refused(&Fixture::new("gptneox").counting("blk.0.attn_qkv.weight", &[8, 4]).bytes(), "heads");
    refused(&Fixture::new("gpt2").counting("blk.0.attn_qkv.weight", &[8]).bytes(), "matrix");
    let mut none = Fixture::new("llama").counting("blk.0.attn_q.weight", &[8, 4]);
    none.fields.iter_mut().find(|(key, _)| key == "llama.attention.head_count").unwrap().1 = Field::U32(0);
    refused(&none.bytes(), "heads");
}

#[test]
fn a_missing_file_is_an_error_of_the_system() {
    let error = GgufModel::open(std::path::Path::new("no/such/file.gguf")).unwrap_err();
    assert!(matches!(error, LoadError::Io { action: "read", .. }));
}

/// A small file with everything in it: quantised blocks, a tokenizer, a chat template.
fn small_file() -> Vec<u8> {
    let mut fixture = super::tokenizers::byte_level_fixture("smollm")
        .field("tokenizer.chat_template", Field::Text("{{ messages }}"))
        .counting("blk.0.attn_q.weight", &[8, 4]);
    fixture.tensors.push(RawTensor {
        name: "output.weight".to_owned(),
        dimensions: vec![32, 2],
        code: 8,
        data: vec![1; 68],
    });
    fixture.bytes()
}

fn exercise(bytes: &[u8]) {
    if let Ok(model) = open(bytes) {
        let _ = model.config();
        let _ = model.tokenizer_config();
        if let Ok(tokenizer) = model.tokenizer() {
            let _ = tokenizer.encode("a b 12", true);
        }
        for name in model.names() {
            let _ = model.read(&name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn truncated_files_never_panic(cut in 0.0_f64..1.0) {
        let bytes = small_file();
        exercise(&bytes[..(bytes.len() as f64 * cut) as usize]);
    }

    #[test]
    fn corrupted_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = small_file();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        exercise(&bytes);
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small_file();
    assert!(open(&bytes).is_ok());
    for end in 0..bytes.len() {
        assert!(matches!(open(&bytes[..end]), Err(LoadError::Malformed { .. })), "{end}");
    }
}
