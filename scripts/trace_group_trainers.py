"""Records TRL's GRPOTrainer and RLOOTrainer step by step, as `tests/golden/trace_*.json` have it.

    python scripts/trace_group_trainers.py --model MODEL --out DIRECTORY [NAME ...]

MODEL is a small causal language model with its tokenizer; the files name it as `tiny/model`. Written against trl 1.16.0.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import transformers
import trl
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

# Options that the traces differ in, beside those that all have.
TRACES = {
    "tiny_grpo_bnpo_ga2": dict(
        loss_type="bnpo", scale_rewards="batch", num_iterations=2, beta=0.03, off_policy_mask_threshold=0.02,
        top_entropy_quantile=0.5, use_adaptive_entropy=True, entropy_coef=0.01, entropy_target=5.945,
        entropy_coef_delta=0.004,
    ),
    "tiny_grpo_dapo_spg4": dict(loss_type="dapo", steps_per_generation=4, entropy_coef=0.01),
    "tiny_rloo_ga2": dict(num_iterations=2),
}
COMMON = dict(
    per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=6, learning_rate=1e-3, num_generations=4,
    max_completion_length=16, lr_scheduler_type="constant", warmup_steps=0, seed=1,
)
WRITTEN = """per_device_train_batch_size max_steps learning_rate warmup_steps weight_decay adam_beta1 adam_beta2
adam_epsilon gradient_accumulation_steps max_grad_norm label_smoothing_factor neftune_noise_alpha num_generations
max_completion_length steps_per_generation temperature beta num_iterations epsilon epsilon_high
importance_sampling_level scale_rewards loss_type use_bias_correction_kl normalize_advantages""".split()
WORDS = "once upon a time there was a little girl named lily who had a big dog".split()
# How much more likely than the model has it a completion ends, so that their lengths differ.
END_BIAS = 3.2


def prompts():
    rows = ([WORDS[(3 * i + j) % len(WORDS)] for j in range(2 + i % 5)] for i in range(48))
    return Dataset.from_list([{"prompt": " ".join(row)} for row in rows])


def recording(trainer_class, steps, gradients):
    """The trainer, writing down what its loss is given and returns."""

    class Recording(trainer_class):
        micro_batches = []

        def _compute_loss(self, model, inputs):
            kept = {
                name: value.tolist() if torch.is_tensor(value) else value
                for name, value in inputs.items()
                if torch.is_tensor(value) or isinstance(value, (int, float))
            }
            loss = super()._compute_loss(model, inputs)
            batch = {"loss": loss.item(), "num_items_in_batch": None, "inputs": kept}
            Recording.micro_batches.append(batch)
            return loss

        def training_step(self, *args, **kwargs):
            result = super().training_step(*args, **kwargs)
            if not steps and len(Recording.micro_batches) == self.args.gradient_accumulation_steps:
                gradients.update((name, p.grad.clone()) for name, p in self.model.named_parameters())
            return result

    class Steps(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in logs:
                return
            logged = {k: v for k, v in logs.items() if isinstance(v, (int, float)) and k != "step_time"}
            entry = {"step": state.global_step, "micro_batches": Recording.micro_batches, "loss": logged["loss"]}
            steps.append(entry | {"grad_norm": logged["grad_norm"], "logged": logged})
            Recording.micro_batches = []

    return Recording, Steps()


def trace(name, model_path, out):
    torch.manual_seed(0)
    is_rloo = name.split("_")[1] == "rloo"
    config_class, trainer_class = (trl.RLOOConfig, trl.RLOOTrainer) if is_rloo else (trl.GRPOConfig, trl.GRPOTrainer)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    rewards, steps, gradients = [], [], {}

    def rf(completion_ids, **kwargs):
        rewards.append([round(0.1 * len(set(ids)) + 0.3 * (sum(ids) % 7), 3) for ids in completion_ids])
        return rewards[-1]

    with tempfile.TemporaryDirectory() as directory:
        args = config_class(
            output_dir=directory, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, bf16=False,
            disable_tqdm=True, gradient_checkpointing=False,
            generation_kwargs={"sequence_bias": [[[tokenizer.eos_token_id], END_BIAS]]},
            **(COMMON | TRACES[name]),
        )
        recorder, callback = recording(trainer_class, steps, gradients)
        recorder(
            model=AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32), args=args, reward_funcs=rf,
            train_dataset=prompts(), processing_class=tokenizer, callbacks=[callback],
        ).train()
    keys = dict.fromkeys(WRITTEN + list(COMMON) + list(TRACES[name]))
    config = {key: getattr(args, key) for key in keys if hasattr(args, key)}
    config = {key: getattr(value, "value", value) for key, value in config.items()}
    versions = {package.__name__: package.__version__ for package in (trl, transformers, torch)}
    written = dict(
        kind="trace", name=name, model="tiny/model", note="recorded by scripts/trace_group_trainers.py",
        versions=versions, config=config, steps=steps, extra={"rewards": rewards},
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
