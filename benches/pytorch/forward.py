"""Log-probabilities of every next token, without gradients."""

import torch
from measure import causal_lm, equal, options, report, timed

chosen = options(__doc__)
model, ids, sums = causal_lm(chosen).eval(), equal(chosen), []


def step():
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
        picked = logits.gather(-1, ids[:, 1:, None]).squeeze(-1)
        sums[:] = (picked - torch.stack([row.logsumexp(-1) for row in logits])).sum(-1).tolist()


report("forward", ids.numel(), timed(chosen, step), sum_logp=sums)
