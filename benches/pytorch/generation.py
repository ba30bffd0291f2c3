"""Greedy generation with a cache: prompts of 32 tokens, 64 new tokens. `--sequences` is the batch size."""

import torch
from measure import causal_lm, options, report, timed, token_ids

NEW_TOKENS = 64
chosen = options(__doc__)
model = causal_lm(chosen).eval()
ids = torch.tensor([token_ids(32, seed) for seed in range(chosen.sequences)])


def step():
    with torch.no_grad():
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
            do_sample=False,
        )  # fmt: skip


report(f"generate-{chosen.sequences}", chosen.sequences * NEW_TOKENS, timed(chosen, step))
