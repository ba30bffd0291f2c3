#!/usr/bin/env python3
"""Loads a saved model directory with transformers and compares what it computes.

    python scripts/check_transformers.py SAVED_DIR [--reference ORIGINAL_DIR] [--logits FILE.safetensors]

SAVED_DIR must load without a missing, unexpected or mismatched weight. With --reference, its logits are compared with
those of the original directory, and the two tokenizers with each other; with --logits, with the tensors `input_ids`
[n] and `logits` [n, vocab] of a safetensors file. Everything is computed in f32 on the CPU. The exit status is 1 if a
check fails, which for logits means a difference of more than 1e-4.

Needs torch, transformers and safetensors.
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-4
TEXTS = [
    "Once upon a time, there was a little girl who lived near the forest.",
    "The capital of France is Paris. 2 + 2 = 4.\n\n\tNaïve café: 東京, 😀!",
]


def load(directory: Path):
    """The model in f32 and what transformers says about its weights."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory, output_loading_info=True, local_files_only=True, attn_implementation="eager"
    )
    return model.float().eval(), info


def load_tokenizer(directory: Path):
    """The directory's tokenizer, or None where it holds no tokenizer files."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return None
    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)


@torch.no_grad()
def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    """Logits [n, vocab] of the ids [n]."""
    return model(input_ids=ids[None].long()).logits[0].float()


def inputs(model, tokenizer) -> list[torch.Tensor]:
    """Ids [n] of the texts; without a tokenizer, ids spread over the vocabulary."""
    if tokenizer is not None:
        return [torch.tensor(tokenizer(text)["input_ids"]) for text in TEXTS]
    vocab = model.config.get_text_config().vocab_size
    return [(torch.arange(24) * 7919 + start) % vocab for start in (1, 5)]


def compare(what: str, actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Prints how far apart two arrays of logits are and whether that is near enough."""
    if actual.shape != expected.shape:
        print(f"{what}: shapes {list(actual.shape)} and {list(expected.shape)} differ: FAILED")
        return False
    difference = (actual - expected).abs().max().item()
    same = (actual.argmax(-1) == expected.argmax(-1)).float().mean().item()
    near = difference <= TOLERANCE  # false for NaN
    verdict = "ok" if near else "FAILED"
    shape = " x ".join(map(str, actual.shape))
    print(f"{what}: {shape} logits, max abs difference {difference:.2e}, same argmax {same:.1%}: {verdict}")
    return near


def check_weights(model, info) -> bool:
    """Prints the number of parameters and every weight that did not find its place."""
    print(f"model: {type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters")
    kinds = {kind: sorted(map(str, info.get(f"{kind}_keys") or [])) for kind in ("missing", "unexpected", "mismatched")}
    for kind, keys in kinds.items():
        print(f"{kind} keys: {', '.join(keys) or 'none'}")
    return not any(kinds.values())


def show_continuation(model, ids: torch.Tensor, tokenizer) -> None:
    """Prints what the model says greedily behind the ids."""
    generated = model.generate(ids[None], attention_mask=torch.ones_like(ids[None]), do_sample=False, max_new_tokens=24)
    new = generated[0, len(ids) :].tolist()
    print(f"greedy continuation: {new if tokenizer is None else tokenizer.decode(new)!r}")


def check_reference(directory: Path, model, tokenizer) -> bool:
    """Compares logits, ids and chat rendering with those of another directory."""
    reference, _ = load(directory)
    good = True
    for index, ids in enumerate(inputs(model, tokenizer)):
        good &= compare(f"reference, text {index}", logits_of(model, ids), logits_of(reference, ids))
    other = load_tokenizer(directory)
    if tokenizer is None or other is None:
        print(f"tokenizers: {'neither directory has one' if tokenizer is other else 'only one directory has one'}")
        return good and tokenizer is other
    same = all(tokenizer(text)["input_ids"] == other(text)["input_ids"] for text in TEXTS)
    if other.chat_template is not None:
        messages = [{"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": TEXTS[1]}]
        render = [t.apply_chat_template(messages, tokenize=False) for t in (tokenizer, other) if t.chat_template]
        same = same and len(render) == 2 and render[0] == render[1]
    print(f"tokenizers: {'ids and chat rendering agree: ok' if same else 'they differ: FAILED'}")
    return good and same


def check_logits(file: Path, model) -> bool:
    """Compares with logits that another program wrote."""
    tensors = load_file(file)
    return compare(file.name, logits_of(model, tensors["input_ids"].flatten()), tensors["logits"].float())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved", type=Path, metavar="SAVED_DIR")
    parser.add_argument("--reference", type=Path, metavar="ORIGINAL_DIR")
    parser.add_argument("--logits", type=Path, metavar="FILE.safetensors")
    arguments = parser.parse_args()

    print(f"transformers {transformers.__version__}, torch {torch.__version__}, tolerance {TOLERANCE:g}")
    model, info = load(arguments.saved)
    tokenizer = load_tokenizer(arguments.saved)
    good = check_weights(model, info)
    show_continuation(model, inputs(model, tokenizer)[0], tokenizer)
    if arguments.reference:
        good &= check_reference(arguments.reference, model, tokenizer)
    if arguments.logits:
        good &= check_logits(arguments.logits, model)
    print("all checks passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
