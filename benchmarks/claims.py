"""How every benchmark states its results.

A benchmark measures, then claims: one line for each claim, tab-separated: its name, the value, the goal, and `ok` or
`short`. `--json FILE` writes the same for machines. The seed is part of the first line printed.
"""

import argparse
import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure held against its goal."""

    name: str
    value: float
    goal: float
    better: str
    """`>=`, `<=`, `<` or `>` between value and goal."""

    @property
    def is_met(self) -> bool:
        if math.isnan(self.value):
            return False
        return {
            ">=": self.value >= self.goal,
            "<=": self.value <= self.goal,
            "<": self.value < self.goal,
            ">": self.value > self.goal,
        }[self.better]

    def line(self) -> str:
        return f"{self.name}\t{self.value:.4g}\t{self.better} {self.goal:.4g}\t{'ok' if self.is_met else 'short'}"


class Benchmark:
    """Collects the claims of one script and prints them last.

    Example:
        benchmark = Benchmark("puppets", seed=7)
        arguments = benchmark.arguments()
        benchmark.claim("puppets.face_rate", 0.97, ">=", 0.95)
        benchmark.finish()
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        self.name = name
        self.claims: list[Claim] = []
        self.notes: dict[str, object] = {}
        self.parser = argparse.ArgumentParser(description=f"Measure the claims about {name}.")
        self.parser.add_argument("--seed", type=int, default=seed, help="where all random numbers start")
        self.parser.add_argument("--quick", action="store_true", help="fewer samples: a look, not a result")
        self.parser.add_argument("--json", type=Path, help="write the claims here as well")
        self._arguments: argparse.Namespace | None = None
        self._start_s = time.monotonic()

    def arguments(self, words: list[str] | None = None) -> argparse.Namespace:
        """Parse the command line, once; add options to `parser` first."""
        if self._arguments is not None:
            return self._arguments
        self._arguments = self.parser.parse_args(words)
        print(f"{self.name}: seed {self._arguments.seed}, {machine()}", flush=True)
        return self._arguments

    def note(self, name: str, value: object) -> None:
        """Keep a figure that has no goal; it is printed and lands in the JSON file."""
        self.notes[name] = value
        print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}", flush=True)

    def claim(self, name: str, value: float, better: str, goal: float) -> None:
        self.claims.append(Claim(name, float(value), float(goal), better))

    def finish(self) -> int:
        """Print the claims, write the JSON file, and return the number of claims that fell short."""
        assert self._arguments is not None, "call arguments() first"
        if self._arguments.json:
            record = {
                "benchmark": self.name,
                "seed": self._arguments.seed,
                "quick": self._arguments.quick,
                "machine": machine(),
                "seconds": round(time.monotonic() - self._start_s, 1),
                "notes": self.notes,
                "claims": [asdict(claim) | {"ok": claim.is_met} for claim in self.claims],
            }
            self._arguments.json.parent.mkdir(parents=True, exist_ok=True)
            self._arguments.json.write_text(json.dumps(record, indent=2) + "\n")
        for claim in self.claims:
            print(claim.line(), flush=True)
        return sum(not claim.is_met for claim in self.claims)


def machine() -> str:
    """Name this machine in a few words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.machine()}, Python {platform.python_version()}"
