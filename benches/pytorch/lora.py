"""A step of fine-tuning with PEFT's LoRA: rank 16 on all linear layers of the blocks."""

from measure import causal_lm, options, train
from peft import LoraConfig, get_peft_model

chosen = options(__doc__)
config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
train(chosen, "lora", get_peft_model(causal_lm(chosen), config).train())
