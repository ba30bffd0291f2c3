"""A step of full fine-tuning."""

from measure import causal_lm, options, train

chosen = options(__doc__)
train(chosen, "sft", causal_lm(chosen).train())
