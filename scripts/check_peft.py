#!/usr/bin/env python3
"""Loads a saved adapter with PEFT and compares what it computes.

    python scripts/check_peft.py ADAPTER_DIR --base MODEL_DIR [--logits FILE.safetensors] [--merged MERGED_DIR]
    python scripts/check_peft.py ADAPTER_DIR --base MODEL_DIR --make [--targets NAME ...] [--dora] [--rslora] [--rank N]
                                 [--classifier SEQ_CLS|TOKEN_CLS --labels N] [--save NAME ...]

ADAPTER_DIR must load onto MODEL_DIR without a missing or unexpected tensor. With --logits, its logits are compared with
the tensors `input_ids` [n] and `logits` [n, vocab] of a safetensors file; with --merged, with those of a model directory
into which the adapter was merged. Everything is computed in f32 on the CPU. The exit status is 1 if a check fails, which
for logits means a difference of more than 1e-4.

With --make, PEFT writes an adapter with random matrices into ADAPTER_DIR instead, and beside it, in logits.safetensors,
its logits and the gradients of the mean negative log-likelihood of the same ids, for a program that reads PEFT's files.

The adapter of a sequence or token classifier, such as a reward model, is loaded as one, and its scores are what is
compared: [labels], or [n, labels]. With --make, the gradients are those of the mean square of the scores.

Needs torch, transformers, peft and safetensors.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4


CLASSES = {
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "TOKEN_CLS": transformers.AutoModelForTokenClassification,
}


def load_base(directory: Path, classifier: str | None, labels: int):
    """The base model in f32."""
    options = dict(local_files_only=True, attn_implementation="eager")
    if classifier is None:
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, **options)
    else:
        model = CLASSES[classifier].from_pretrained(directory, num_labels=labels, **options)
    return model.float().eval()


def head_of(directory: Path) -> tuple[str | None, int]:
    """What kind of classifier an adapter is of, if it is one, and its labels."""
    task = json.loads((directory / "adapter_config.json").read_text())["task_type"]
    tensors = load_file(directory / "adapter_model.safetensors")
    heads = [tensor for name, tensor in tensors.items() if name.endswith(("score.weight", "classifier.weight"))]
    return (task, heads[0].shape[0]) if task in CLASSES and heads else (None, 0)


@torch.no_grad()
def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    """Logits [n, vocab] of the ids [n]."""
    return model(input_ids=ids[None].long()).logits[0].float()


def spread_ids(model) -> torch.Tensor:
    """Ids spread over the vocabulary."""
    return (torch.arange(24) * 7919 + 1) % model.config.get_text_config().vocab_size


def compare(what: str, actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Prints how far apart two arrays of logits are and whether that is near enough."""
    if actual.shape != expected.shape:
        print(f"{what}: shapes {list(actual.shape)} and {list(expected.shape)} differ: FAILED")
        return False
    difference = (actual - expected).abs().max().item()
    near = difference <= TOLERANCE  # false for NaN
    shape = " x ".join(map(str, actual.shape))
    print(f"{what}: {shape} logits, max abs difference {difference:.2e}: {'ok' if near else 'FAILED'}")
    return near


def check_tensors(model, directory: Path) -> bool:
    """Compares the names of the file with those of the model that PEFT built from the configuration."""
    expected = set(peft.get_peft_model_state_dict(model))
    found = set(load_file(directory / "adapter_model.safetensors"))
    print(f"adapter: {len(found)} tensors, {sum(p.numel() for n, p in model.named_parameters() if 'lora_' in n):,} numbers")
    print(f"missing: {', '.join(sorted(expected - found)) or 'none'}")
    print(f"unexpected: {', '.join(sorted(found - expected)) or 'none'}")
    return expected == found


def check(arguments) -> bool:
    kind = head_of(arguments.adapter)
    base = load_base(arguments.base, *kind)
    ids = load_file(arguments.logits)["input_ids"].flatten() if arguments.logits else spread_ids(base)
    without = logits_of(base, ids)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(base, arguments.adapter).eval()
    told = [str(warning.message) for warning in said if "missing" in str(warning.message).lower()]
    good = check_tensors(model, arguments.adapter) and not told
    adapted = logits_of(model, ids)
    change = (adapted - without).abs().max().item()
    print(f"the adapter changes the base model's logits by up to {change:.2e}")
    if arguments.logits:
        good &= compare(arguments.logits.name, adapted, load_file(arguments.logits)["logits"].float())
    if arguments.merged:
        good &= compare("merged", logits_of(load_base(arguments.merged, *kind), ids), adapted)
    return good


def make(arguments) -> bool:
    torch.manual_seed(0)
    base = load_base(arguments.base, arguments.classifier, arguments.labels)
    config = peft.LoraConfig(
        r=arguments.rank,
        lora_alpha=16,
        target_modules=arguments.targets or "all-linear",
        use_dora=arguments.dora,
        use_rslora=arguments.rslora,
        modules_to_save=arguments.save,
        ensure_weight_tying=bool(arguments.save) and base.config.tie_word_embeddings,
        task_type=arguments.classifier or "CAUSAL_LM",
    )
    model = peft.get_peft_model(base, config).eval()
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            parameter.data.normal_(0, 0.1)
        elif "lora_magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
        elif "modules_to_save" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(arguments.adapter)
    ids = spread_ids(base)
    logits = model(input_ids=ids[None]).logits[0]
    if arguments.classifier:
        logits.square().mean().backward()
    else:
        torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).backward()
    arrays = {"input_ids": ids, "logits": logits.detach().contiguous()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            name = name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")
            name = name.replace(".modules_to_save", "")
            arrays[f"gradient.{name}"] = parameter.grad
    save_file(arrays, arguments.adapter / "logits.safetensors")
    print(f"{arguments.adapter}: rank {arguments.rank}, {'DoRA' if arguments.dora else 'LoRA'}")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR")
    parser.add_argument("--base", type=Path, required=True, metavar="MODEL_DIR")
    parser.add_argument("--logits", type=Path, metavar="FILE.safetensors")
    parser.add_argument("--merged", type=Path, metavar="MERGED_DIR")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--targets", nargs="+", metavar="NAME")
    parser.add_argument("--dora", action="store_true")
    parser.add_argument("--rslora", action="store_true")
    parser.add_argument("--classifier", choices=sorted(CLASSES))
    parser.add_argument("--save", nargs="+", metavar="NAME")
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    arguments = parser.parse_args()

    versions = f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    print(f"{versions}, tolerance {TOLERANCE:g}")
    good = make(arguments) if arguments.make else check(arguments)
    print("all checks passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
