"""A step of TRL's SFTTrainer on prompts and completions of 32 to 512 tokens, loss on completions, padded.

Tokens count without padding.
"""

import tempfile
import time

from datasets import Dataset
from measure import RAGGED, causal_lm, options, report, token_ids
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

chosen = options(__doc__)
rows = [
    {"input_ids": token_ids(prompt + completion, seed), "completion_mask": [0] * prompt + [1] * completion}
    for seed, (prompt, completion) in enumerate(RAGGED)
]
seconds, losses = [], []


class Timer(TrainerCallback):
    def on_step_begin(self, *arguments, **named):
        self.start = time.perf_counter()

    def on_step_end(self, *arguments, **named):
        seconds.append(time.perf_counter() - self.start)

    def on_log(self, arguments, state, control, logs=None, **named):
        losses.extend([logs["loss"]] if logs and "loss" in logs else [])


settings = SFTConfig(
    output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
    save_strategy="no", logging_steps=1, disable_tqdm=True, learning_rate=1e-5, lr_scheduler_type="constant",
    optim="adamw_torch", max_steps=chosen.reps + 1, per_device_train_batch_size=len(rows), max_length=512,
    train_sampling_strategy="sequential",
)  # fmt: skip
tokenizer = AutoTokenizer.from_pretrained(chosen.model)
data = Dataset.from_list(rows * (chosen.reps + 1))
SFTTrainer(
    model=causal_lm(chosen), args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[Timer()]
).train()
report("ragged", sum(map(sum, RAGGED)), seconds[1:], losses=losses)
