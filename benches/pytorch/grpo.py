"""A step of TRL's GRPOTrainer: one prompt of about 32 tokens, eight sampled completions of 64 tokens, one update.

Completions are sampled by transformers with its cache. Tokens are generated tokens; the loss of a first update is 0 up to the
length of the completions, which are all equally long.
"""

from datasets import Dataset
from measure import causal_lm, options, report
from pairs import Clock, settings
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

GROUP = 8
NEW_TOKENS = 64
PROMPT = "Write about the sea and the ships that cross it, the towns along its shore, and what the people who live there tell"


def distinct_tokens(completion_ids, **_):
    return [float(len(set(tokens))) for tokens in completion_ids]


chosen, clock = options(__doc__), Clock()
common = {**settings(chosen), "per_device_train_batch_size": GROUP}
common.pop("max_length", None)
tokenizer = AutoTokenizer.from_pretrained(chosen.model)
trainer = GRPOTrainer(
    model=causal_lm(chosen),
    reward_funcs=distinct_tokens,
    args=GRPOConfig(
        **common,
        num_generations=GROUP,
        max_completion_length=NEW_TOKENS,
        generation_kwargs={"min_new_tokens": NEW_TOKENS},
        beta=0.0,
    ),
    train_dataset=Dataset.from_list([{"prompt": f"{PROMPT} of year {index}"} for index in range(chosen.reps + 4)]),
    processing_class=tokenizer,
    callbacks=[clock],
)
trainer.train()
report("grpo", GROUP * NEW_TOKENS, clock.seconds[1:], losses=clock.losses)
