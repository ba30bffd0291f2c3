"""A step of TRL's SFTTrainer on prompts and completions of 32 to 512 tokens, loss on completions.

Padded, or with `--packed 672` in rows of as many; tokens count without padding. With `--equal`, on `--sequences` of `--length`
tokens instead, loss on all of them. Without flash attention TRL's packed samples
see each other, so that losses of the two sides differ then.
"""

import tempfile
import time

from datasets import Dataset
from measure import RAGGED, causal_lm, equal, options, report, token_ids
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

chosen = options(__doc__)
ragged = [
    {"input_ids": token_ids(prompt + completion, seed), "completion_mask": [0] * prompt + [1] * completion}
    for seed, (prompt, completion) in enumerate(RAGGED)
]
rows = [{"input_ids": row.tolist()} for row in equal(chosen)] if chosen.equal else ragged
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
    optim="adamw_torch", max_steps=chosen.reps + 1, max_length=chosen.packed or 512,
    per_device_train_batch_size=2 if chosen.packed else len(rows), packing=bool(chosen.packed),
    completion_only_loss=not chosen.equal, train_sampling_strategy="sequential",
)  # fmt: skip
tokenizer = AutoTokenizer.from_pretrained(chosen.model)
data = Dataset.from_list(rows * (chosen.reps + 1))
SFTTrainer(
    model=causal_lm(chosen), args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[Timer()]
).train()
name = "sft-trl" if chosen.equal else "packed" if chosen.packed else "ragged"
report(name, sum(len(row["input_ids"]) for row in rows), seconds[1:], losses=losses)
