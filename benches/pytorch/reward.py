"""A step of TRL's RewardTrainer on two pairs whose sides share a prompt.

TRL computes each prompt twice and pads; tokens count without padding and a prompt once. The head has the weights that
`compare.rs` gives it.
"""

import torch
from datasets import Dataset
from measure import options, report
from pairs import UNIQUE_TOKENS, Clock, rows, settings
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

chosen, clock = options(__doc__), Clock()
tokenizer = AutoTokenizer.from_pretrained(chosen.model)
model = AutoModelForSequenceClassification.from_pretrained(chosen.model, num_labels=1, dtype=torch.float32)
model.config.pad_token_id = tokenizer.pad_token_id
with torch.no_grad():
    width = model.score.weight.shape[1]
    model.score.weight.copy_(torch.tensor([[(index * 37 % 101 - 50) / 1000 for index in range(width)]]))
pairs = [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in rows()]
RewardTrainer(
    model=model,
    args=RewardConfig(**settings(chosen)),
    train_dataset=Dataset.from_list(pairs * (chosen.reps + 1)),
    processing_class=tokenizer,
    callbacks=[clock],
).train()
report("reward", UNIQUE_TOKENS, clock.seconds[1:], losses=clock.losses)
