"""A step of TRL's DPOTrainer with a frozen reference model, on two pairs whose sides share a prompt.

TRL computes each prompt twice and pads; tokens count without padding and a prompt once.
"""

from datasets import Dataset
from measure import causal_lm, options, report
from pairs import UNIQUE_TOKENS, Clock, rows, settings
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer


class TokenizedDPOTrainer(DPOTrainer):
    def _prepare_dataset(self, dataset, *arguments):
        return dataset


chosen, clock = options(__doc__), Clock()
TokenizedDPOTrainer(
    model=causal_lm(chosen),
    ref_model=causal_lm(chosen),
    args=DPOConfig(**settings(chosen), beta=0.1),
    train_dataset=Dataset.from_list(rows() * (chosen.reps + 1)),
    processing_class=AutoTokenizer.from_pretrained(chosen.model),
    callbacks=[clock],
).train()
report("dpo", UNIQUE_TOKENS, clock.seconds[1:], losses=clock.losses)
