"""Runs lines of `compare.rs` and the PyTorch scripts in turn on one machine and prints the ratios of speed and of memory.

    cargo build --release --manifest-path benches/Cargo.toml --bin compare
    PYTHON benches/compare.py --binary benches/target/release/compare --model DIRECTORY [--rounds 5] [LINE …]

PYTHON has torch, transformers, peft and trl; DIRECTORY is a Hugging Face directory that both sides load. The order is
A B, B A, …, so that a slow minute of the machine hits both. Speed is tokens a second, ours by theirs: above 1 we are
faster. Memory is the peak resident set of the whole process, loading included: below 1 we need less. Only the ratios
are worth quoting, and only from a machine that does nothing else.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
# What `compare.rs` calls it, their script, their further options.
LINES = {
    "forward": ("forward", "forward.py", []),
    "sft": ("sft", "sft.py", []),
    "sft-trl": ("sft", "trl_sft.py", ["--equal"]),
    "ragged": ("ragged", "trl_sft.py", []),
    "packed": ("packed", "trl_sft.py", ["--packed", "672"]),
    "lora": ("lora", "lora.py", []),
    "dpo": ("dpo", "dpo.py", []),
    "reward": ("reward", "reward.py", []),
    "grpo": ("grpo", "grpo.py", []),
    "generate-1": ("generate-1", "generation.py", ["--sequences", "1"]),
    "generate-8": ("generate-8", "generation.py", ["--sequences", "8"]),
}


def measure(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{") and "tokens_per_s" in line]
    if done.returncode or not lines:
        sys.exit(f"no result from {' '.join(command)} (exit status {done.returncode})")
    return lines[-1]


def compare(line, options):
    ours, script, further = LINES[line]
    common = ["--model", options.model, "--reps", str(options.reps)]
    commands = {
        "ours": [options.binary, ours, *common, *options.ours],
        "theirs": [sys.executable, str(HERE / "pytorch" / script), *common, *further],
    }
    speed, memory = [], []
    for round_ in range(options.rounds):
        order = ("ours", "theirs") if round_ % 2 == 0 else ("theirs", "ours")
        pair = {side: measure(commands[side]) for side in order}
        speed.append(pair["ours"]["tokens_per_s"] / pair["theirs"]["tokens_per_s"])
        memory.append(pair["ours"]["peak_rss_mb"] / pair["theirs"]["peak_rss_mb"])
        print(json.dumps({"round": round_ + 1, **pair}), file=sys.stderr, flush=True)
    print(
        f"{line:12} speed × {statistics.median(speed):.2f} ({min(speed):.2f} to {max(speed):.2f})"
        f"   memory × {statistics.median(memory):.2f} ({min(memory):.2f} to {max(memory):.2f})",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="*", metavar="LINE", help=f"of {', '.join(LINES)}; all of them unless named")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--ours", nargs=argparse.REMAINDER, default=[], help="further options of our side, last")
    options = parser.parse_args()
    for line in options.lines or LINES:
        if line not in LINES:
            sys.exit(f"there is no line `{line}`: use {', '.join(LINES)}")
        compare(line, options)


if __name__ == "__main__":
    main()
