//! A directory with a tiny model and data, and the command run in it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use align_model::{
    device::DeviceName,
    pretrained::{Architecture, SaveOptions},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The longest text that the model reads.
pub(crate) const CONTEXT: usize = 48;

const SPECIAL: [&str; 4] = ["<unk>", "<bos>", "<end>", "<user>"];
const WORDS: [&str; 12] =
    ["what", "is", "a", "cat", "dog", "cow", "who", "says", "moo", "it", "an", "animal"];

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }} <end> \
    {% else %}<user> {{ m.content }} {% endif %}{% endfor %}";

/// A directory that is gone with the test.
pub(crate) struct Workplace {
    directory: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Workplace {
    /// With a model in `model`, demonstrations in `data.jsonl` and a run file `run.toml`.
    pub(crate) fn new() -> Self {
        let place = Self { directory: TempDir::new().unwrap() };
        place.write_model("model", 32);
        let animals = ["cat", "dog", "cow"];
        place.write("data.jsonl", &animals.map(|animal| format!("{}\n", demonstration(animal))).concat());
        place.write(
            "run.toml",
            "model = \"model\"\ndata = \"data.jsonl\"\nout = \"out\"\n\n[sft]\nmax_length = 32\n\
             duration = { steps = 60 }\nupdate.learning_rate = 1e-2\n",
        );
        place
    }

    /// Writes a model of this width.
    pub(crate) fn write_model(&self, name: &str, width: usize) {
        let config = json!({
            "model_type": "llama", "vocab_size": SPECIAL.len() + WORDS.len(), "hidden_size": width,
            "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2,
            "bos_token_id": 1, "initializer_range": 0.1, "architectures": ["LlamaForCausalLM"],
        });
        let architecture = Architecture::from_json(Path::new("config.json"), config).unwrap();
        let model = architecture.random(&mut ChaCha8Rng::seed_from_u64(1), &DeviceName::FLEX.open().unwrap());
        architecture.save(&model, &self.path(name), SaveOptions::default()).unwrap();
        self.write(&format!("{name}/tokenizer.json"), &tokenizer().to_string());
        self.write(&format!("{name}/tokenizer_config.json"), &tokenizer_config().to_string());
        self.write(&format!("{name}/chat_template.jinja"), TEMPLATE);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the command; the arguments are parted at spaces.
    pub(crate) fn align(&self, arguments: &str) -> Said {
        self.align_with(arguments, "")
    }

    /// Runs the command with this standard input; the arguments are parted at spaces.
    pub(crate) fn align_with(&self, arguments: &str, input: &str) -> Said {
        self.run(&arguments.split(' ').collect::<Vec<_>>(), input)
    }

    /// Runs the command with these arguments and this standard input.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_align"))
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that has no use for its input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }
}

impl Said {
    /// What was said, if all went well.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Checks that the command failed and said this.
    #[track_caller]
    pub(crate) fn failed(&self, expected: &str) {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        assert!(self.err.starts_with("error: ") || self.err.contains("\nerror: "), "{}", self.err);
        assert!(self.err.contains(expected), "{}", self.err);
    }
}

fn demonstration(animal: &str) -> Value {
    json!({
        "prompt": [{"role": "user", "content": format!("what is a {animal}")}],
        "completion": [{"role": "assistant", "content": format!("a {animal} is an animal")}],
        "source": "farm",
    })
}

fn tokenizer() -> Value {
    let vocabulary: Map<String, Value> =
        SPECIAL.iter().chain(&WORDS).enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let added = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    })
}

fn tokenizer_config() -> Value {
    json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<bos>",
           "eos_token": "<end>", "pad_token": "<end>"})
}
