"""Records TRL's TPOTrainer step by step, as `tests/golden/trace_*.json` have it.

    python scripts/trace_tpo_trainer.py --model MODEL --out DIRECTORY [NAME ...]

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
from trl.experimental.tpo import TPOConfig, TPOTrainer

# Options that the traces differ in, beside those that all have.
TRACES = {
    "tiny_tpo": dict(loss_type="sigmoid", beta=0.1, label_smoothing=0.1, tpo_alpha=0.7),
    "tiny_tpo_l_ga2": dict(loss_type="tpo-l", beta=2.0, tpo_l_gamma=0.5, gradient_accumulation_steps=2),
}
COMMON = dict(
    per_device_train_batch_size=3, gradient_accumulation_steps=1, max_steps=8, learning_rate=1e-3, max_length=64,
    lr_scheduler_type="constant", warmup_steps=0, seed=1,
)
WRITTEN = """weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor neftune_noise_alpha
label_smoothing loss_type tpo_alpha tpo_l_gamma beta""".split()
WORDS = "once upon a time there was a little girl named lily who had a big dog".split()


def triples():
    def words(start, count):
        return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(count))

    rows = (
        {
            "prompt": words(3 * i, 2 + i % 5),
            "chosen": " " + words(5 * i + 1, 1 + i % 4),
            "rejected": " " + words(7 * i + 2, 2 + i % 3),
            "reference": " " + words(2 * i + 3, 3 + i % 6),
        }
        for i in range(48)
    )
    return Dataset.from_list(list(rows))


def recording(steps, gradients):
    """The trainer, writing down what its loss is given and returns."""

    class Recording(TPOTrainer):
        micro_batches = []

        def _compute_loss(self, model, inputs, return_outputs):
            kept = {name: value.tolist() for name, value in inputs.items() if torch.is_tensor(value)}
            loss = super()._compute_loss(model, inputs, return_outputs)
            Recording.micro_batches.append({"loss": loss.item(), "num_items_in_batch": None, "inputs": kept})
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
            logged = {k: v for k, v in logs.items() if isinstance(v, (int, float))}
            entry = {"step": state.global_step, "micro_batches": Recording.micro_batches, "loss": logged["loss"]}
            steps.append(entry | {"grad_norm": logged["grad_norm"], "logged": logged})
            Recording.micro_batches = []

    return Recording, Steps()


def trace(name, model_path, out):
    torch.manual_seed(0)
    steps, gradients = [], {}
    with tempfile.TemporaryDirectory() as directory:
        args = TPOConfig(
            output_dir=directory, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, bf16=False,
            disable_tqdm=True, gradient_checkpointing=False, **(COMMON | TRACES[name]),
        )
        recorder, callback = recording(steps, gradients)
        recorder(
            model=AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32), args=args,
            train_dataset=triples(), processing_class=AutoTokenizer.from_pretrained(model_path), callbacks=[callback],
        ).train()
    keys = dict.fromkeys(WRITTEN + list(COMMON) + list(TRACES[name]))
    config = {key: getattr(args, key) for key in keys}
    config = {key: getattr(value, "value", value) for key, value in config.items()}
    versions = {package.__name__: package.__version__ for package in (trl, transformers, torch)}
    written = dict(
        kind="trace", name=name, model="tiny/model", note="recorded by scripts/trace_tpo_trainer.py",
        versions=versions, config=config, steps=steps, extra={},
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
