"""The pairs, the settings and the clock of the scripts that time a TRL trainer on preference pairs."""

import tempfile
import time

from measure import token_ids
from transformers import TrainerCallback

# Prompt, chosen and rejected tokens of each pair: 800 tokens, a prompt counted once.
PAIRS = [(64, 32, 160), (192, 256, 96)]
UNIQUE_TOKENS = sum(map(sum, PAIRS))


def rows():
    return [
        {
            "prompt_ids": token_ids(prompt, 3 * index),
            "chosen_ids": token_ids(chosen, 3 * index + 1),
            "rejected_ids": token_ids(rejected, 3 * index + 2),
        }
        for index, (prompt, chosen, rejected) in enumerate(PAIRS)
    ]


def settings(chosen):
    """Of any TRL trainer: one batch of all pairs a step, AdamW at a constant rate."""
    return {
        "output_dir": tempfile.mkdtemp(), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "learning_rate": 1e-6,
        "lr_scheduler_type": "constant", "optim": "adamw_torch", "max_steps": chosen.reps + 1, "max_length": 512,
        "per_device_train_batch_size": len(PAIRS), "train_sampling_strategy": "sequential",
    }  # fmt: skip


class Clock(TrainerCallback):
    """Seconds and loss of each step."""

    def __init__(self):
        self.seconds, self.losses = [], []

    def on_step_begin(self, *arguments, **named):
        self.start = time.perf_counter()

    def on_step_end(self, *arguments, **named):
        self.seconds.append(time.perf_counter() - self.start)

    def on_log(self, arguments, state, control, logs=None, **named):
        self.losses.extend([logs["loss"]] if logs and "loss" in logs else [])
