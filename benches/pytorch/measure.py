"""Options, token ids, timing and output of the scripts beside this file; the Rust side of each is `../compare.rs`."""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import torch  # noqa: E402  reads the variables above

# Prompt and completion tokens of each sequence of the ragged lines.
RAGGED = [(16, 16), (32, 32), (64, 96), (96, 128), (96, 224), (136, 376)]


def options(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="Hugging Face directory")
    parser.add_argument("--reps", type=int, default=3, help="repetitions that count, after one to warm up")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--packed", type=int, default=0, help="of the ragged line: tokens of a packed row")
    parser.add_argument("--equal", action="store_true", help="of TRL: sequences of equal length")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen


def token_ids(count, seed):
    """The ids that `compare.rs` draws."""
    state, ids = seed * 2654435761 % 2**32, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        ids.append(100 + (state >> 16) % 40000)
    return ids


def equal(chosen):
    return torch.tensor([token_ids(chosen.length, seed) for seed in range(chosen.sequences)])


def causal_lm(chosen):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32)


def timed(chosen, work):
    seconds = []
    for _ in range(chosen.reps + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def report(name, tokens, seconds, **details):
    step = statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"name": name, "tokens_per_s": tokens / step, "step_s": step, "tokens": tokens, "peak_rss_mb": peak}
    print(json.dumps({**line, "details": {"torch": torch.__version__, **details}}), flush=True)


def train(chosen, name, model):
    """Whole optimiser steps in a plain loop: forward with labels, backward, clipping, AdamW."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0)
    ids, losses = equal(chosen), []

    def step():
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    report(name, ids.numel(), timed(chosen, step), losses=losses)
