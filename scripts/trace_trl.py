"""Records TRL's trainers step by step, as `tests/golden/trace_*.json` have it.

    python scripts/trace_trl.py --model MODEL --out DIRECTORY [NAME ...]

MODEL is a small causal language model with its tokenizer; the files name it as `tiny/model`. A name says which trainer it is.
A further trace is a further entry of TRACES. Written against trl 1.16.0.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
import transformers
import trl
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.tpo import TPOConfig, TPOTrainer

# Options that the traces differ in, beside those that all have.
TRACES = {
    "tiny_grpo_bnpo_ga2": dict(
        loss_type="bnpo", scale_rewards="batch", num_iterations=2, beta=0.03, off_policy_mask_threshold=0.02,
        top_entropy_quantile=0.5, use_adaptive_entropy=True, entropy_coef=0.01, entropy_target=5.945,
        entropy_coef_delta=0.004,
    ),
    "tiny_grpo_dapo_spg4": dict(loss_type="dapo", steps_per_generation=4, entropy_coef=0.01),
    "tiny_rloo_ga2": dict(num_iterations=2),
    "tiny_cpo_alpha_ga2": dict(loss_type="simpo", alpha=0.2, cpo_alpha=0.5, simpo_gamma=0.7, beta=0.1),
    "tiny_tpo": dict(loss_type="sigmoid", beta=0.1, label_smoothing=0.1, tpo_alpha=0.7, gradient_accumulation_steps=1),
    "tiny_tpo_l_ga2": dict(loss_type="tpo-l", beta=2.0, tpo_l_gamma=0.5),
}
COMMON = dict(
    gradient_accumulation_steps=2, max_steps=6, learning_rate=1e-3, lr_scheduler_type="constant", warmup_steps=0, seed=1,
)
OF_GROUPS = dict(per_device_train_batch_size=4, num_generations=4, max_completion_length=16)
OF_PAIRS = dict(per_device_train_batch_size=3, max_length=64)
# Options that are written down, where a trainer has them.
WRITTEN = """weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor neftune_noise_alpha
steps_per_generation temperature beta num_iterations epsilon epsilon_high importance_sampling_level scale_rewards
loss_type use_bias_correction_kl normalize_advantages label_smoothing cpo_alpha simpo_gamma tpo_alpha
tpo_l_gamma""".split()
WORDS = "once upon a time there was a little girl named lily who had a big dog".split()
# How much more likely than the model has it a sampled completion ends, so that their lengths differ.
END_BIAS = 3.2


def words(start, count):
    return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(count))


def rows(columns):
    """Data for the trainer that reads these columns."""
    of_row = {
        "prompt": lambda i: words(3 * i, 2 + i % 5),
        "chosen": lambda i: " " + words(5 * i + 1, 1 + i % 4),
        "rejected": lambda i: " " + words(7 * i + 2, 2 + i % 3),
        "reference": lambda i: " " + words(2 * i + 3, 3 + i % 6),
    }
    return Dataset.from_list([{column: of_row[column](i) for column in columns} for i in range(48)])


def recording(trainer_class, steps, gradients):
    """The trainer, writing down what its loss is given and returns."""

    def has_loss(cls):
        return any("_compute_loss" in vars(base) for base in cls.__mro__ if base.__module__.startswith("trl"))

    loss_method = "_compute_loss" if has_loss(trainer_class) else "compute_loss"

    class Recording(trainer_class):
        micro_batches = []

        def training_step(self, *args, **kwargs):
            result = super().training_step(*args, **kwargs)
            if not steps and len(Recording.micro_batches) == self.args.gradient_accumulation_steps:
                gradients.update((name, p.grad.clone()) for name, p in self.model.named_parameters())
            return result

    def compute_loss(self, model, inputs, *args, **kwargs):
        kept = {
            name: value.tolist() if torch.is_tensor(value) else value
            for name, value in inputs.items()
            if torch.is_tensor(value) or isinstance(value, (int, float))
        }
        loss = getattr(super(Recording, self), loss_method)(model, inputs, *args, **kwargs)
        Recording.micro_batches.append({"loss": loss.item(), "num_items_in_batch": None, "inputs": kept})
        return loss

    setattr(Recording, loss_method, compute_loss)

    class Steps(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in logs:
                return
            logged = {k: v for k, v in logs.items() if isinstance(v, (int, float)) and k != "step_time"}
            entry = {"step": state.global_step, "micro_batches": Recording.micro_batches, "loss": logged["loss"]}
            steps.append(entry | {"grad_norm": logged["grad_norm"], "logged": logged})
            Recording.micro_batches = []

    return Recording, Steps()


def trainer_of(name, tokenizer, rewards):
    """The classes of configuration and trainer, options of its kind, and what else the trainer is given."""

    def rf(completion_ids, **kwargs):
        rewards.append([round(0.1 * len(set(ids)) + 0.3 * (sum(ids) % 7), 3) for ids in completion_ids])
        return rewards[-1]

    ends = {"generation_kwargs": {"sequence_bias": [[[tokenizer.eos_token_id], END_BIAS]]}}
    of_groups = dict(reward_funcs=rf, train_dataset=rows(["prompt"]))
    pairs = ["prompt", "chosen", "rejected"]
    return {
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer, OF_GROUPS | ends, of_groups),
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer, OF_GROUPS | ends, of_groups),
        "cpo": (CPOConfig, CPOTrainer, OF_PAIRS, dict(train_dataset=rows(pairs))),
        "tpo": (TPOConfig, TPOTrainer, OF_PAIRS, dict(train_dataset=rows(pairs + ["reference"]))),
    }[name.split("_")[1]]


def trace(name, model_path, out):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    rewards, steps, gradients = [], [], {}
    config_class, trainer_class, of_kind, given = trainer_of(name, tokenizer, rewards)
    options = COMMON | of_kind | TRACES[name]
    with tempfile.TemporaryDirectory() as directory:
        args = config_class(
            output_dir=directory, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, bf16=False,
            disable_tqdm=True, gradient_checkpointing=False, **options,
        )
        recorder, callback = recording(trainer_class, steps, gradients)
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        recorder(model=model, args=args, processing_class=tokenizer, callbacks=[callback], **given).train()
    keys = [key for key in dict.fromkeys(WRITTEN + list(options)) if hasattr(args, key) and key != "generation_kwargs"]
    config = {key: getattr(args, key) for key in keys}
    config = {key: getattr(value, "value", value) for key, value in config.items()}
    versions = {package.__name__: package.__version__ for package in (trl, transformers, torch)}
    written = dict(
        kind="trace", name=name, model="tiny/model", note="recorded by scripts/trace_trl.py", versions=versions,
        config=config, steps=steps, extra={"rewards": rewards} if rewards else {},
    )
    (out / f"trace_{name}.json").write_text(json.dumps(written))
    save_file(gradients, out / f"trace_{name}_step1_grads.safetensors")
    print(name, [round(step["loss"], 6) for step in steps])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TRACES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for one in arguments.names or TRACES:
        trace(one, arguments.model, arguments.out)
