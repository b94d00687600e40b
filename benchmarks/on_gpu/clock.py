"""Seconds and bytes of a call, a budget of time, and a table that is written as results come."""

import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

NOT_MEASURED = "not measured"


@dataclass
class Meter:
    """Times calls on one device."""

    device: torch.device
    times: int = 3

    @property
    def has_card(self) -> bool:
        return self.device.type == "cuda"

    def sync(self) -> None:
        if self.has_card:
            torch.cuda.synchronize()

    def once(self, call: Callable[[], Any]) -> float:
        """Seconds of one call, from an idle device to an idle device."""
        self.sync()
        start_s = time.perf_counter()
        call()
        self.sync()
        return time.perf_counter() - start_s

    def median(self, call: Callable[[], Any], times: int | None = None) -> dict[str, float]:
        """First call (which may compile), then the median of `times` calls, and the peak of memory of these."""
        first_s = self.once(call)
        self.start_peak()
        seconds = [self.once(call) for _ in range(times or self.times)]
        return {"seconds": statistics.median(seconds), "first_s": first_s} | self.peak()

    def pairs(self, base: Callable[[], float], other: Callable[[], float], times: int) -> dict[str, float]:
        """Interleaved triples of base, other, base: the ratio to the bases around it, and of one base to the other.

        Both calls return their own seconds. The control says how much of a ratio is the machine's own unrest.
        """
        for call in (base, other):
            call()
        triples = [[call() for call in (base, other, base)] for _ in range(times)]
        return {
            "base_s": statistics.median(t[0] for t in triples),
            "seconds": statistics.median(t[1] for t in triples),
            "ratio": statistics.median(2 * t[1] / (t[0] + t[2]) for t in triples),
            "control": statistics.median(t[2] / t[0] for t in triples),
        }

    def start_peak(self) -> None:
        if self.has_card:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> dict[str, float]:
        return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if self.has_card else {}


@dataclass
class Table:
    """Parts in the order in which they ran; each is written to the file before the next one starts."""

    path: Path | None
    budget_s: float
    facts: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    start_s: float = field(default_factory=time.monotonic)

    def left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self.start_s)

    def run(self, name: str, part: Callable[[], dict[str, Any]], *, deadline_s: float) -> dict[str, Any]:
        """Measure `part`, unless less than half of `deadline_s` is left; it is ended after that time.

        What fails is written down as such, so that the rest is measured all the same.
        """
        begin_s = time.monotonic()
        if self.left_s() < deadline_s / 2:
            why = f"{self.left_s():.0f} s left, about {deadline_s / 2:.0f} s needed"
            result = {"state": NOT_MEASURED, "why": why}
        else:
            try:
                with ended_after(min(deadline_s, self.left_s())):
                    result = {"state": "measured", **part()}
            except Exception as error:  # A part may fail in any way: other kernels, other drivers, no memory.
                result = {
                    "state": "failed",
                    "why": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
                }
        result["part_s"] = round(time.monotonic() - begin_s, 2)
        self.parts[name] = result
        self.write()
        print(line(name, result), flush=True)
        return result

    def write(self) -> None:
        if self.path is None:
            return
        record = {"facts": self.facts, "parts": self.parts}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(record, indent=2) + "\n")


def line(name: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    columns = (
        ("seconds", "{:.4f} s"),
        ("peak_gb", "{:.2f} GB"),
        ("ratio", "x{:.4f}"),
        ("control", "control x{:.4f}"),
    )
    shown = [pattern.format(result[key]) for key, pattern in columns if key in result]
    if result["state"] != "measured":
        shown = [result["state"], result["why"]]
    return f"  {name:34s} {'  '.join(shown)}"


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what runs inside for longer, as soon as Python runs again."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
