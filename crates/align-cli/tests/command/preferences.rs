//! Learning from preferences: pairs, judged completions, reward models.

use std::fs;

use serde_json::{Value, json};

use crate::workplace::Workplace;

/// A question with a right and a wrong answer.
fn pair(animal: &str, other: &str) -> String {
    let (prompt, chosen) = (format!("what is a {animal}"), format!(" a {animal} is an animal"));
    format!("{}\n", json!({ "prompt": prompt, "chosen": chosen, "rejected": format!(" it is a {other}") }))
}

/// Six pairs, one that prefers an answer to itself, one whose prompt fills the length; and a run file for each method.
pub(crate) fn place() -> Workplace {
    let place = Workplace::new();
    let animals = ["cat", "dog", "cow"];
    let pairs = animals
        .iter()
        .flat_map(|one| animals.iter().filter(move |other| *other != one).map(move |other| pair(one, other)));
    let useless = [
        json!({ "prompt": "what is a cat", "chosen": " it is", "rejected": " it is" }),
        json!({ "prompt": "cat ".repeat(40), "chosen": "dog", "rejected": "cow" }),
    ];
    let useless = useless.map(|row| format!("{row}\n")).concat();
    place.write("pairs.jsonl", &(pairs.collect::<String>() + &useless));
    place.write("evaluation.jsonl", &pair("cow", "dog"));
    for (method, settings) in
        [("dpo", "objective = { kind = \"dpo\", beta = 0.5 }\n"), ("kto", "beta = 0.5\n"), ("reward", "")]
    {
        place.write(
            &format!("{method}.toml"),
            &format!(
                "model = \"model\"\nout = \"{method}\"\n\n[data]\ntrain = \"pairs.jsonl\"\n\
                 evaluation = \"evaluation.jsonl\"\n\n[{method}]\n{settings}max_length = 32\nbatch_size = 4\n\
                 micro_batch_size = 2\nduration = {{ steps = 12 }}\nupdate.learning_rate = 5e-3\n\n\
                 [evaluation]\nevery = 6\nat_start = true\n\n[checkpoints]\nevery = 4\nkeep_last = 9\n"
            ),
        );
    }
    place
}

fn metrics(place: &Workplace, method: &str) -> Vec<Value> {
    let text = place.read(&format!("{method}/metrics.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"))
}

fn run(method: &str) -> String {
    format!("{method} --config {method}.toml")
}

#[test]
fn each_method_learns_what_is_preferred() {
    let place = place();
    for (method, accuracy, examples) in [
        ("dpo", "eval_rewards/accuracies", "6 pairs"),
        ("kto", "eval_rewards/margins", "14 completions"),
        ("reward", "eval_accuracy", "6 pairs"),
    ] {
        let said = place.align(&run(method)).succeeded();
        assert!(said.contains(&format!("pairs.jsonl: {examples}, ")), "{method}: {said}");
        assert!(said.contains(&format!("wrote the model to {method}")), "{method}: {said}");
        let metrics = metrics(&place, method);
        let (first, last) = (&metrics[0], &metrics[12]);
        assert!(number(last, "eval_loss") < number(first, "eval_loss"), "{method}: {first} {last}");
        assert!(number(last, accuracy) > 0.9, "{method}: {first} {last}");
        assert!(place.read(&format!("{method}/report.html")).contains("finished"), "{method}");
    }
    let answer = ["--greedy", "--max-new-tokens", "6", "--prompt", "what is a cow"];
    place.run(&[&["generate", "--model", "dpo"], &answer[..]].concat(), "").succeeded();
    assert!(place.read("reward/config.json").contains("ForSequenceClassification"));
}

#[test]
fn what_teaches_nothing_is_left_out_and_its_place_is_named() {
    let place = place();
    let said = place.align(&format!("{} --dry-run", run("dpo"))).succeeded();
    for expected in [
        "1 pairs prefer a completion to itself and are left out (pairs.jsonl:7)",
        "1 prompts leave nothing of dpo.max_length to a completion and are left out (pairs.jsonl:8)",
        "pairs       3 of them as the model reads them",
        "pairs.jsonl:1: ",
        "prompt, 4 tokens\n    what is a cat",
        "chosen, 6 tokens\n    ⟦a cat is an animal <end>⟧",
        "rejected, 5 tokens\n    ⟦it is a dog <end>⟧",
        "steps       12, each of 4 in 2 passes",
        "memory      about ",
        "time        about ",
        "problems    none: the run can begin",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!place.path("dpo").exists());
    let said = place.align(&format!("{} --dry-run=fast --set kto.max_length=9", run("kto"))).succeeded();
    assert!(said.contains("samples were longer than kto.max_length and cut"), "{said}");
    assert!(said.contains("desirable") && said.contains("undesirable"), "{said}");
    let said = place.align(&format!("{} --dry-run --set reward.max_length=10", run("reward"))).succeeded();
    assert!(said.contains("samples are longer than reward.max_length and are left out"), "{said}");
}

#[test]
fn runs_go_on_bit_for_bit() {
    let place = place();
    for method in ["dpo", "kto", "reward"] {
        let result = || {
            let model = fs::read(place.path(&format!("{method}/model.safetensors"))).unwrap();
            (model, place.read(&format!("{method}/metrics.jsonl")))
        };
        place.align(&run(method)).succeeded();
        let straight = result();
        for step in [8, 12] {
            fs::remove_dir_all(place.path(&format!("{method}/checkpoint-{step:06}"))).unwrap();
        }
        fs::remove_file(place.path(&format!("{method}/model.safetensors"))).unwrap();
        let again = place.align(&format!("{} --resume", run(method))).succeeded();
        assert!(again.contains("resuming    after step 4 of 12"), "{again}");
        assert!(result() == straight, "{method}");
    }
}

#[test]
fn references_may_be_switched_off_or_kept_in_a_file() {
    let place = place();
    let adapter = "--set adapter.rank=4 --set adapter.targets=all-linear";
    let losses = |method: &str| -> Vec<f64> {
        metrics(&place, method)[1..].iter().map(|line| number(line, "loss")).collect()
    };
    place.align(&format!("{} {adapter}", run("dpo"))).succeeded();
    let frozen = losses("dpo");
    assert!(place.path("dpo/adapter_model.safetensors").exists());
    let off = format!("{} {adapter} --out off --set dpo.reference={{kind='adapter_off'}}", run("dpo"));
    place.align(&off).succeeded();
    assert_eq!(losses("off"), frozen);
    let kept = format!("{} {adapter} --out kept --set dpo.reference={{kind='precomputed'}}", run("dpo"));
    place.align(&kept).succeeded();
    for (one, other) in losses("kept").iter().zip(&frozen) {
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
    assert!(place.path("kept/reference.logprobs").exists());
    place.align(&format!("{kept} --resume")).succeeded();
    let without = off.replace(&format!("{adapter} "), "").replace("--out off", "--out other");
    place.align(&without).failed("add [adapter]");
}

#[test]
fn a_kept_reference_knows_the_completions_that_kto_exchanges() {
    let place = place();
    place.align(&run("kto")).succeeded();
    let kept = format!("{} --set kto.reference={{kind='precomputed'}}", run("kto"));
    place.align(&format!("{kept} --out kept --dry-run")).succeeded();
    place.align(&format!("{kept} --out kept")).succeeded();
    for (one, other) in metrics(&place, "kept").iter().zip(metrics(&place, "kto")) {
        let names = ["loss", "kl", "eval_loss", "eval_kl"];
        for name in names.into_iter().filter(|name| other[*name].is_number()) {
            let (one, other) = (number(one, name), number(&other, name));
            assert!((one - other).abs() < 1e-5, "{name}: {one} {other}");
        }
    }
    let resumed = place.align(&format!("{kept} --out kept --resume")).succeeded();
    assert!(resumed.contains("reference   read from kept/reference.logprobs"), "{resumed}");
    assert!(resumed.contains("was finished after step 12"), "{resumed}");

    // The file in another run's directory: of other batches, and of other weights.
    let moved = |set: &str, expected: &str| {
        fs::create_dir_all(place.path("moved")).unwrap();
        fs::copy(place.path("kept/reference.logprobs"), place.path("moved/reference.logprobs")).unwrap();
        place.align(&format!("{kept} --out moved --resume {set}")).failed(expected);
        fs::remove_dir_all(place.path("moved")).unwrap();
    };
    moved("--set kto.seed=7", "for `kto`, batches changed");
    moved("--set model=kto", "computed with other reference weights");
}

#[test]
fn kto_is_tried_on_a_whole_group() {
    let place = place();
    for set in [
        "kto.micro_batch_size=1",
        "kto.batch_size=6 --set kto.micro_batch_size=4 --set kto.loss_batch_size=3",
    ] {
        for reference in ["frozen", "precomputed"] {
            let reference = format!("--set kto.reference={{kind='{reference}'}}");
            let said = place.align(&format!("{} --set {set} {reference} --dry-run", run("kto"))).succeeded();
            assert!(said.contains("time        about "), "{said}");
        }
    }
}

#[test]
fn beta_may_follow_the_margins() {
    let place = place();
    let dynamic = format!("{} --set dpo.dynamic_beta={{sensitivity=0.3}}", run("dpo"));
    place.align(&dynamic).succeeded();
    let result = || (fs::read(place.path("dpo/model.safetensors")).unwrap(), place.read("dpo/metrics.jsonl"));
    let straight = result();
    let betas: Vec<f64> = metrics(&place, "dpo")[1..].iter().map(|line| number(line, "beta")).collect();
    assert!((betas[0] - 0.5).abs() < 1e-5, "the first margins are 0: {betas:?}");
    assert!((betas[11] - 0.5).abs() > 1e-3, "{betas:?}");
    for step in [8, 12] {
        fs::remove_dir_all(place.path(&format!("dpo/checkpoint-{step:06}"))).unwrap();
    }
    place.align(&format!("{dynamic} --resume")).succeeded();
    assert!(result() == straight);
    place
        .align(&format!(
            "{dynamic} --out free --set dpo.objective={{kind='reference_free',beta=1.0,loss={{kind='orpo'}}}}"
        ))
        .failed("`dynamic_beta` has no meaning");
}

#[test]
fn a_third_completion_is_imitated() {
    let place = place();
    let triple = |animal: &str| {
        let (prompt, gold) = (format!("what is a {animal}"), format!(" a {animal} is an animal"));
        let row = json!({ "prompt": prompt, "chosen": format!(" a {animal}"), "rejected": " it is", "reference": gold });
        format!("{row}\n")
    };
    place.write("triples.jsonl", &(["cat", "dog", "cow"].map(triple).concat() + &pair("cow", "dog")));
    let objective =
        "{kind='reference_free',beta=0.1,loss={kind='sigmoid'},likelihood={weight=1.0,of='gold'}}";
    let tpo = format!("{} --set dpo.objective={objective} --set data.train=triples.jsonl", run("dpo"));
    place.write("evaluation.jsonl", &triple("cow"));
    let said = place.align(&format!("{tpo} --dry-run")).succeeded();
    assert!(said.contains("gold, 6 tokens\n    ⟦a cat is an animal <end>⟧"), "{said}");
    assert!(said.contains("1 pairs have no `reference` to imitate"), "{said}");
    assert!(said.contains("(triples.jsonl:4)"), "{said}");
    place.align(&tpo).succeeded();
    let lines = metrics(&place, "dpo");
    assert!(number(&lines[12], "nll_loss") < 0.5 * number(&lines[1], "nll_loss"), "{:?}", lines[12]);
    place.align(&format!("{tpo} --out none --set data.train=pairs.jsonl")).failed("reference");
}

#[test]
fn each_source_is_measured_by_itself() {
    let place = place();
    place.write("more.jsonl", &pair("dog", "cow"));
    let settings = place.read("dpo.toml").replace("\"pairs.jsonl\"", "[\"pairs.jsonl\", \"more.jsonl\"]");
    place.write("two.toml", &settings);
    place.align("dpo --config two.toml").succeeded();
    let lines = metrics(&place, "dpo");
    assert!(lines.iter().any(|line| line["rewards/accuracies/more"].is_number()), "{:?}", lines.last());
    assert!(lines.iter().any(|line| line["rewards/accuracies/pairs"].is_number()), "{:?}", lines.last());
}

#[test]
fn judged_completions_may_be_streamed() {
    let place = place();
    let stream = format!("{} --set data.streaming={{window=3}} --set kto.batch_size=3", run("kto"));
    place.align(&stream).succeeded();
    let result = || (fs::read(place.path("kto/model.safetensors")).unwrap(), place.read("kto/metrics.jsonl"));
    let straight = result();
    for step in [8, 12] {
        fs::remove_dir_all(place.path(&format!("kto/checkpoint-{step:06}"))).unwrap();
    }
    place.align(&format!("{stream} --resume")).succeeded();
    assert!(result() == straight, "a batch of 3 ends inside a pair");
}

#[test]
fn what_a_method_cannot_do_is_refused() {
    let place = place();
    for (method, set, expected) in [
        ("dpo", "dpo.objective={kind='dpo',losses=[]}", "`objective.losses` is empty"),
        ("dpo", "dpo.objective={kind='dop'}", "unknown variant `dop`"),
        ("kto", "kto.batch_size=1", "`batch_size` must be at least 2"),
        ("reward", "reward.objective={kind='ranked'}", "rankings, ratings and grades are for programs"),
        ("reward", "samples.prompts=['cat']", "a reward model writes nothing"),
        ("reward", "save.form=adapter", "save.form is for models with an adapter"),
        ("dpo", "data.train=data.jsonl", "`chosen`"),
    ] {
        let more = if method == "kto" { " --set kto.micro_batch_size=1" } else { "" };
        place.align(&format!("{} --set {set}{more}", run(method))).failed(expected);
        assert!(!place.path(method).exists(), "{set}");
    }
}

#[test]
fn a_reward_model_may_be_an_adapter_and_its_head() {
    let place = place();
    let fresh = "--set adapter.rank=4 --set adapter.modules_to_save=['embed_tokens'] --set save.form=adapter";
    let said = place.align(&format!("{} {fresh}", run("reward"))).succeeded();
    assert!(said.contains("wrote the adapter to reward"), "{said}");
    assert!(!place.path("reward/config.json").exists());
    let config: Value = serde_json::from_str(&place.read("reward/adapter_config.json")).unwrap();
    assert_eq!(
        (&config["task_type"], &config["modules_to_save"]),
        (&json!("SEQ_CLS"), &json!(["embed_tokens", "score"]))
    );
    // A run that was interrupted goes on to the same bytes.
    let weights = || fs::read(place.path("reward/adapter_model.safetensors")).unwrap();
    let straight = weights();
    for step in [8, 12] {
        fs::remove_dir_all(place.path(&format!("reward/checkpoint-{step:06}"))).unwrap();
    }
    fs::remove_file(place.path("reward/adapter_model.safetensors")).unwrap();
    place.align(&format!("{} {fresh} --resume", run("reward"))).succeeded();
    assert!(weights() == straight);
    // Training goes on with the head as it was, and what is merged measures the same.
    let on =
        "--set adapter.from=reward --set reward.duration={steps=1} --set reward.update.learning_rate=1e-9";
    place.align(&format!("{} {on} --out on", run("reward"))).succeeded();
    let (end, begin) = (metrics(&place, "reward"), metrics(&place, "on"));
    assert!((number(&begin[0], "eval_loss") - number(end.last().unwrap(), "eval_loss")).abs() < 1e-6);
    assert!(place.read("on/config.json").contains("ForSequenceClassification"));
    place
        .align(&format!("{} --set model=on --set reward.duration={{steps=1}} --out merged", run("reward")))
        .succeeded();
    let merged = metrics(&place, "merged");
    assert!((number(&merged[0], "eval_loss") - number(&begin[0], "eval_loss")).abs() < 1e-4);
    place
        .align(&format!("{} --set adapter.from=reward", run("dpo")))
        .failed("the adapter makes a reward model of it");
}
