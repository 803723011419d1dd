"""The token path of this checkout against another's, side by side: `gateway_pair.py OTHER/.venv/bin/trimtab`.

Both serve the mock engine at once and take turns inside every round; the other one takes two turns, which is the A/A
noise. Prints ratios of tokens/s (this ÷ other) and CPU seconds of the gateway per thousand tokens, and writes them to
results/gateway_pair.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil

from trimtab.bench.load import Target, measure, speedup
from trimtab.spec.clock import now
from trimtab.spec.hardware import this_machine

HERE = Path(__file__).parent
OURS = Path(sys.executable).with_name("trimtab")
LEVELS = (1, 16, 64)
REQUESTS = {1: 4, 16: 64, 64: 192}


def serve(stack: ExitStack, trimtab: Path) -> Target:
    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    environment = os.environ | {"TRIMTAB_HOME": str(home)}
    made = subprocess.run(
        [trimtab, "keys", "create", "--name", "pair", "--json"],
        env=environment,
        capture_output=True,
        check=True,
    )
    service = subprocess.Popen(
        [trimtab, "serve", "mock", "--port", "0", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(service.wait)
    stack.callback(service.terminate)
    text = ""
    while not text.rstrip().endswith("}"):
        text += service.stdout.readline()
    tree = [service.pid, *(child.pid for child in psutil.Process(service.pid).children(recursive=True))]
    return Target(
        url=json.loads(text)["url"], key=json.loads(made.stdout)["key"], model="mock", pids=tuple(tree)
    )


def gateway_seconds(target: Target) -> float:
    """CPU time so far of the process that has the HTTP port."""
    for process in map(psutil.Process, target.pids):
        if any("service" in word and "gateway" in word for word in process.cmdline()):
            times = process.cpu_times()
            return times.user + times.system
    raise RuntimeError("no gateway among the service's processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    found = {}
    with ExitStack() as stack:
        targets = {"this": serve(stack, OURS), "other": serve(stack, arguments.other)}
        targets["other again"] = targets["other"]
        for output_tokens in (64, 512):
            before = {name: gateway_seconds(target) for name, target in targets.items()}
            seen = measure(
                targets,
                prompt_tokens=64,
                output_tokens=output_tokens,
                vocabulary_size=256,
                concurrencies=LEVELS,
                requests=REQUESTS,
                rounds=arguments.rounds,
            )
            spent = {name: gateway_seconds(target) - before[name] for name, target in targets.items()}
            tokens = (arguments.rounds + 1) * sum(REQUESTS.values()) * output_tokens / 1000
            ratios = {
                level: {
                    "this ÷ other": str(speedup(seen["this"], seen["other"], level)),
                    "A/A": str(speedup(seen["other again"], seen["other"], level)),
                }
                for level in LEVELS
            }
            cpu = {"this": spent["this"] / tokens, "other": spent["other"] / tokens / 2}
            found[f"{output_tokens} tokens"] = {
                "tokens/s": ratios,
                "gateway CPU ms per 1,000 tokens": {
                    name: round(1e3 * value, 3) for name, value in cpu.items()
                },
            }
    record = {"machine": str(this_machine()), "created": now(), "rounds": arguments.rounds, **found}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (HERE / "results" / "gateway_pair.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
