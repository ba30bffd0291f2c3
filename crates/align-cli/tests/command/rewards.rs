//! Learning from rewards: groups of completions, a critic, reward models, and what is kept of it.

use std::fs;

use serde_json::{Value, json};

use crate::workplace::{CONTEXT, Workplace};

/// Questions whose right answer is in a column, one that fills the context; and a run file for each method.
pub(crate) fn place() -> Workplace {
    let place = Workplace::new();
    let question =
        |animal: &str| format!("{}\n", json!({ "prompt": format!("what is a {animal}"), "answer": "moo" }));
    let long = format!("{}\n", json!({ "prompt": "cat ".repeat(CONTEXT), "answer": "moo" }));
    let animals = ["cat", "dog", "cow"];
    place.write("prompts.jsonl", &(animals.map(question).concat() + &long));
    place.write(
        "held_out.jsonl",
        &["who says moo", "is it a cow"]
            .map(|prompt| format!("{}\n", json!({ "prompt": prompt, "answer": "moo" })))
            .concat(),
    );
    for (method, settings) in [
        ("grpo", "rollout = { samples = 8, max_new_tokens = 4 }\nbatch_size = 3\nmicro_batch_size = 12\n"),
        (
            "ppo",
            "rollout = { samples = 4, max_new_tokens = 4 }\nbatch_size = 3\nmicro_batch_size = 6\nepochs = 2\n\
             critic_update.learning_rate = 1e-2\n",
        ),
        ("raft", "rollout = { samples = 8, max_new_tokens = 4 }\nbatch_size = 3\nmicro_batch_size = 12\n"),
        ("online", "rollout = { samples = 8, max_new_tokens = 4 }\nbatch_size = 3\nmicro_batch_size = 6\n"),
    ] {
        place.write(
            &format!("{method}.toml"),
            &format!(
                "model = \"model\"\nout = \"{method}\"\n\n[data]\ntrain = \"prompts.jsonl\"\n\
                 evaluation = \"held_out.jsonl\"\n\n[[rewards]]\nkind = \"regex\"\npattern = \"moo\"\n\
                 matching = \"anywhere\"\n\n[[rewards]]\nkind = \"exact_match\"\nweight = 0.5\n\n[{method}]\n{settings}\
                 duration = {{ steps = 24 }}\nupdate.learning_rate = 2e-2\n\n[evaluation]\nevery = 8\n\
                 at_start = true\n\n[checkpoints]\nevery = 8\nkeep_last = 9\n"
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
fn each_method_learns_what_is_rewarded() {
    let place = place();
    for (method, completions) in [("grpo", 24), ("ppo", 12), ("online", 24), ("raft", 24)] {
        let said = place.align(&run(method)).succeeded();
        assert!(said.contains("prompts.jsonl: 3 prompts, "), "{said}");
        assert!(said.contains("fill the model's context, leave no room"), "{said}");
        assert!(said.contains(&format!("wrote the model to {method}")), "{said}");
        let metrics = metrics(&place, method);
        let (first, last) = (&metrics[0], &metrics[24]);
        assert!(number(last, "eval_reward") > number(first, "eval_reward") + 0.3, "{method}: {first} {last}");
        assert!(
            last["eval_reward_margin"].is_number() && last["eval_rewards/regex/mean"].is_number(),
            "{last}"
        );
        assert_eq!(place.read(&format!("{method}/rollouts.jsonl")).lines().count(), 24 * completions);
        assert!(place.read(&format!("{method}/report.html")).contains("evaluation reward"), "{method}");
    }
}

#[test]
fn every_objective_wins_against_its_reference() {
    let place = place();
    for objective in ["kind='online_dpo',loss='ipo'", "kind='nash_md',beta=0.01", "kind='xpo'"] {
        let said = format!("{} --set online.objective={{{objective}}} --overwrite", run("online"));
        place.align(&said).succeeded();
        let metrics = metrics(&place, "online");
        let (first, last) = (&metrics[0], &metrics[24]);
        assert!(number(last, "eval_win_rate") > number(first, "eval_win_rate") + 0.05, "{first} {last}");
        assert!(number(last, "eval_win_rate_margin") >= 0.0 && last["reward"].is_number(), "{last}");
    }
    let said = place.align("rollouts show online --step 24 --limit 1").succeeded();
    assert!(said.contains("  preferred: ") && said.contains("  regex: "), "{said}");
}

#[test]
fn rollouts_are_there_to_be_read() {
    let place = place();
    place.align(&format!("{} --set grpo.duration={{steps=2}}", run("grpo"))).succeeded();
    let said = place.align("rollouts show grpo --step 2 --limit 3").succeeded();
    assert!(said.starts_with("step 2 · group "), "{said}");
    assert!(said.contains("exact_match: ") && said.contains("[prompt]\n    what is a "), "{said}");
    assert!(said.ends_with("21 more: --limit N shows them\n"), "{said}");
    let rows = |arguments: &str| -> Vec<Value> {
        let said = place.align(&format!("rollouts show {arguments} --json")).succeeded();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let best = rows("grpo --best --sort reward --limit 100");
    assert_eq!(best.len(), 6, "the best of three prompts in each of two steps");
    assert!(best.windows(2).all(|pair| number(&pair[0], "reward") >= number(&pair[1], "reward")));
    assert_eq!(rows("grpo/rollouts.jsonl --best --worst --limit 100").len(), 12);
    place.align("rollouts show grpo --step 9").failed("its last step is 2");
    place.align("rollouts show model").failed("write it into their output directory");
}

#[test]
fn runs_go_on_bit_for_bit() {
    let place = place();
    for method in ["grpo", "ppo", "online", "raft"] {
        let result = || {
            let model = fs::read(place.path(&format!("{method}/model.safetensors"))).unwrap();
            let text = |file: &str| place.read(&format!("{method}/{file}.jsonl"));
            (model, text("metrics"), text("rollouts"))
        };
        place.align(&run(method)).succeeded();
        let straight = result();
        for step in [16, 24] {
            fs::remove_dir_all(place.path(&format!("{method}/checkpoint-{step:06}"))).unwrap();
        }
        let again = place.align(&format!("{} --resume", run(method))).succeeded();
        assert!(again.contains("resuming    after step 8 of 24"), "{again}");
        assert!(result() == straight, "{method}");
    }
}

#[test]
fn a_dry_run_shows_completions_and_what_they_get() {
    let place = place();
    for (method, critic) in [("grpo", false), ("ppo", true), ("online", false), ("raft", false)] {
        let said = place.align(&format!("{} --dry-run", run(method))).succeeded();
        for expected in [
            "prompts.jsonl:1: 4 tokens, answer \"moo\"",
            "what is a cat",
            "completions of at most 4 follow",
            "keys and values of what is sampled",
            "of the model as it is, of at most 4 tokens, and what they get",
            "  regex: ",
            "  exact_match: ",
            "[completion]",
            "time        about ",
            "problems    none: the run can begin",
        ] {
            assert!(said.contains(expected), "{method}: {expected}: {said}");
        }
        assert_eq!(said.contains("critic "), critic, "{said}");
        let said = place.align(&format!("{} --dry-run=fast", run(method))).succeeded();
        assert!(!said.contains("[completion]"), "{said}");
        assert!(!place.path(method).exists());
    }
}

#[test]
fn reward_models_are_rewards_and_critics() {
    let place = place();
    let pair = |animal: &str| json!({ "prompt": format!("what is a {animal}"), "chosen": " moo", "rejected": " it is a" });
    place.write("pairs.jsonl", &["cat", "dog", "cow"].map(|animal| format!("{}\n", pair(animal))).concat());
    place.write(
        "reward.toml",
        "model = \"model\"\ndata = \"pairs.jsonl\"\nout = \"reward\"\n\n[reward]\nmax_length = 32\nbatch_size = 3\n\
         micro_batch_size = 3\nduration = { steps = 20 }\nupdate.learning_rate = 5e-3\n",
    );
    place.align(&run("reward")).succeeded();
    let by_model = "--set rewards=[{kind='model',path='reward'}]";
    place
        .align(&format!("{} {by_model} --set critic={{kind='reward_model',from='reward'}}", run("ppo")))
        .succeeded();
    let lines = metrics(&place, "ppo");
    assert!(
        number(&lines[24], "eval_reward") > number(&lines[0], "eval_reward"),
        "{} {}",
        lines[0],
        lines[24]
    );
    assert!(lines[24]["eval_rewards/model/mean"].is_number(), "{}", lines[24]);
    let shared =
        format!("{} --set critic.kind=shared --overwrite --set ppo.duration={{steps=3}}", run("ppo"));
    place.align(&shared).succeeded();
    let said = place.align(&format!("{} {by_model} --dry-run", run("grpo"))).succeeded();
    assert!(said.contains("reward model "), "{said}");
}

#[test]
fn an_adapter_with_its_head_is_a_reward_model() {
    let place = place();
    let pair = json!({ "prompt": "what is a cat", "chosen": " moo", "rejected": " it is a" });
    place.write("pairs.jsonl", &format!("{pair}\n"));
    place.write(
        "reward.toml",
        "model = \"model\"\ndata = \"pairs.jsonl\"\nout = \"reward\"\n\n[reward]\nmax_length = 32\nbatch_size = 1\n\
         micro_batch_size = 1\nduration = { steps = 8 }\nupdate.learning_rate = 5e-3\n\n[adapter]\nrank = 4\n\n\
         [save]\nform = \"both\"\n",
    );
    place.align(&run("reward")).succeeded();
    let scores = |path: &str| -> Vec<f64> {
        let by_model = format!("--set rewards=[{{kind='model',path='{path}'}}] --overwrite");
        let critic =
            format!("--set critic={{kind='reward_model',from='{path}'}} --set ppo.duration={{steps=2}}");
        place.align(&format!("{} {by_model} {critic}", run("ppo"))).succeeded();
        metrics(&place, "ppo").iter().filter_map(|line| line["eval_reward"].as_f64()).collect()
    };
    let (merged, adapter) = (scores("reward"), scores("reward/adapter"));
    assert!(!merged.is_empty());
    // What is learnt differs: the critic trains all of the one and the adapter of the other.
    assert!((merged[0] - adapter[0]).abs() < 1e-4, "{merged:?} {adapter:?}");
    let text = place.read("reward/adapter/adapter_config.json").replace("\"model\"", "\"gone\"");
    place.write("reward/adapter/adapter_config.json", &text);
    place
        .align(&format!("{} --set rewards=[{{kind='model',path='reward/adapter'}}] --overwrite", run("ppo")))
        .failed("was made for gone");
}

#[test]
fn adapters_learn_from_rewards_too() {
    let place = place();
    let adapter = "--set adapter.rank=4 --set adapter.targets=all-linear --set save.form=both";
    for (method, kl) in [
        ("grpo", "--set grpo.algorithm={preset='grpo',objective={kl={coefficient=0.1}}}"),
        ("ppo", "--set ppo.kl={kind='per_token'}"),
        ("online", "--set online.objective={kind='xpo'}"),
    ] {
        let off =
            format!("--set {method}.reference={{kind='adapter_off'}} --set {method}.duration={{steps=3}}");
        place.align(&format!("{} {adapter} {kl} {off}", run(method))).succeeded();
        assert!(place.path(&format!("{method}/adapter/adapter_model.safetensors")).exists());
        place.align(&format!("{} {kl} {off} --overwrite", run(method))).failed("add [adapter]");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let place = place();
    let without = place.read("grpo.toml");
    let (head, tail) = (without.find("[[rewards]]").unwrap(), without.find("[grpo]").unwrap());
    place.write("none.toml", &format!("{}{}", &without[..head], &without[tail..]));
    place.align("grpo --config none.toml").failed("there is nothing to learn from: add [[rewards]]");
    place.align("sft --config run.toml --set rewards=[]").failed("unknown field `rewards`");
    place.align(&format!("{} --set critic.kind=shared", run("grpo"))).failed("unknown field `critic`");
    for (method, set, expected) in [
        (
            "grpo",
            "rewards=[{kind='numeric',truth={column='solution'}}]",
            "rewards[0]: it scores none of the first",
        ),
        ("grpo", "rewards=[{kind='numeric',truth={column='solution'}}]", "no column `solution`"),
        ("grpo", "rewards=[{kind='magic'}]", "magic"),
        ("grpo", "rewards=[{kind='model',path='nowhere'}]", "rewards[0].path"),
        (
            "grpo",
            "grpo.rollout.max_new_tokens=100",
            "grpo.rollout.max_new_tokens = 100 is more than the model can read",
        ),
        ("grpo", "grpo.reference={kind='frozen'}", "`reference` has no meaning"),
        ("grpo", "grpo.algorithm=grop", "grop"),
        ("grpo", "grpo.micro_batch_size=100", "`micro_batch_size` = 100"),
        ("ppo", "critic={kind='reward_model',from='nowhere'}", "critic.from"),
        ("ppo", "ppo.gamma=2", "ppo.gamma"),
        ("online", "online.rollout.samples=3", "`rollout.samples` = 3 does not make pairs"),
        ("online", "online.rollout.decoding={kind='greedy'}", "writes the same completion twice"),
        ("online", "online.micro_batch_size=13", "`micro_batch_size` = 13 is more than the 12 pairs"),
        ("online", "online.reference={kind='adapter_off'}", "add [adapter]"),
        ("online", "online.objective={kind='online_dpo',alpha=1}", "unknown field `alpha`"),
        ("online", "online.objective={kind='dpo'}", "unknown variant `dpo`"),
        ("online", "rewards=[{kind='magic'}]", "magic"),
        ("raft", "raft.keep={kind='best_of_group',count=8}", "`keep.count` = 8 keeps all of 8 completions"),
        ("raft", "raft.keep={kind='at_least',score=inf}", "`keep.score` = inf is no finite number"),
        ("raft", "raft.rollout.decoding={kind='greedy'}", "writes the same completion again"),
        ("raft", "raft.reference={kind='frozen'}", "unknown field `reference`"),
        ("online", "critic.kind=shared", "unknown field `critic`"),
    ] {
        place.align(&format!("{} --set {set}", run(method))).failed(expected);
        assert!(!place.path(method).exists(), "{set}");
    }
}

#[test]
fn a_better_measure_watches_and_can_end_a_run() {
    let place = place();
    let gold = "--set gold.every=8 --set gold.rewards=[{kind='finished'}]";
    place.align(&format!("{} {gold}", run("grpo"))).succeeded();
    let lines = metrics(&place, "grpo");
    for step in [0, 8, 16, 24] {
        let line = &lines[step];
        assert!(line["gold/mean"].is_number() && line["gold/proxy"].is_number(), "{line}");
    }
    assert!(
        number(&lines[0], "gold/kl").abs() < 1e-4 && number(&lines[24], "gold/kl") > 0.01,
        "{}",
        lines[24]
    );
    let said = place.align(&format!("{} {gold} --set gold.alarm.kl_budget=1e-9 --out short", run("ppo")));
    assert!(said.succeeded().contains("stopped     after step 8"));
    let without = place.read("grpo.toml").replace("evaluation = \"held_out.jsonl\"", "");
    place.write("blind.toml", &without.replace("[evaluation]\nevery = 8\nat_start = true\n", ""));
    place
        .align(&format!("grpo --config blind.toml {gold}"))
        .failed("[gold] needs prompts that nothing is trained on");
}

#[test]
fn an_alarm_can_end_a_run() {
    let place = place();
    let alarm = "--set grpo.alarms=[{when={kind='no_signal',share=0.0},patience=1,action={kind='stop'}}]";
    let silent = "--set rewards=[{kind='affine',scale=0.0,shift=1.0,reward={kind='finished'}}]";
    let said = place.align(&format!("{} {alarm} {silent}", run("grpo"))).succeeded();
    assert!(said.contains("stopped     after step 1: step 1: `frac_reward_zero_std` is 1.0000"), "{said}");
    assert!(place.read("grpo/report.html").contains("frac_reward_zero_std"));
    assert!(place.path("grpo/model.safetensors").exists());
}
