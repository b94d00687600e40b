"""Time and memory of one step at true CogVideoX-5B size, with random weights, on one GPU.

Run it by `benchmarks/gpu.sh`, which needs the repository, torch with CUDA and a few wheels. Without a GPU every
figure is `not measured`. Quality is not measured: the weights are random.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from claims import Benchmark


def main() -> int:
    benchmark = Benchmark("gpu", seed=0)
    benchmark.parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU: does it run?")
    benchmark.parser.add_argument("--budget-s", type=float, default=540, help="what does not fit is left out")
    benchmark.parser.add_argument("--table", type=Path, help="write every part here as soon as it is measured")
    benchmark.parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments = benchmark.arguments()
    torch.manual_seed(arguments.seed)
    if not torch.cuda.is_available() and not arguments.dry_run:
        print("  no GPU here: every figure is not measured")
        state_goals(benchmark, {})
        benchmark.finish()
        return 0
    table = measure(arguments)
    if arguments.dry_run:
        broken = [name for name, part in table.items() if part["state"] != "measured"]
        print(f"dry run: {len(table) - len(broken)} of {len(table)} parts ran; no figure here is a result")
        return len(broken)
    state_goals(benchmark, table)
    benchmark.notes |= {"parts": table}
    benchmark.finish()
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run all parts; the slowest and riskiest come last. Deadlines are a few times what an H100 should need."""
    from on_gpu.clock import Meter, Table
    from on_gpu.models import DRY, FULL
    from on_gpu.parts import BACKENDS, Bench

    is_dry = arguments.dry_run
    device = torch.device("cpu" if is_dry else "cuda")
    table = Table(path=arguments.table, budget_s=arguments.budget_s, facts=facts(device))
    print(f"  {table.facts}", flush=True)
    size = DRY if is_dry else FULL
    bench = Bench(
        size,
        Meter(device, times=1 if is_dry else 3),
        torch.float32 if is_dry else torch.bfloat16,
        compiles=arguments.compile and not is_dry,
    )
    table.run("machine", bench.machine, deadline_s=20)
    table.run("stock", bench.stock, deadline_s=40)
    kernels = {}
    for backend in BACKENDS[:1] if is_dry else BACKENDS:
        part = table.run(f"attention {backend}", lambda name=backend: bench.attention(name), deadline_s=30)
        if part["state"] == "measured":
            kernels[backend] = part["seconds"]
    bench.choose(kernels)
    bench.attach()
    table.run("adapted", bench.adapted_pairs, deadline_s=80)
    table.run("training step", bench.train, deadline_s=60)
    table.run("VAE decode", bench.decode, deadline_s=40)
    table.run("TAECVX-shaped decode", bench.decode_small, deadline_s=20)
    table.run("compiled", bench.compiled, deadline_s=120)
    table.run("compiled, adapted", bench.compiled_pairs, deadline_s=150)
    table.run("compiled, fp8", bench.fp8, deadline_s=120)
    table.run("compiled, fp8, adapted, cached", bench.cached, deadline_s=60)
    return table.parts


def facts(device: torch.device) -> dict[str, Any]:
    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
    return found


def state_goals(benchmark: Benchmark, table: dict[str, dict[str, Any]]) -> None:
    """Claim what was measured, and print `not measured` for the rest."""

    def figure(name: str, key: str = "seconds") -> float:
        return table.get(name, {}).get(key, float("nan"))

    stock = figure("stock")
    adapted = figure("compiled, adapted")
    is_calm = abs(figure("compiled, adapted", "control") - 1) <= 0.005 / 3
    goals = (
        # A control further off than a third of the claim decides nothing.
        (
            "gpu.adapted_over_base",
            figure("compiled, adapted", "ratio") if is_calm else float("nan"),
            "<=",
            1.005,
        ),
        ("gpu.adapted_over_stock", adapted / stock, "<=", 0.60),
        ("gpu.fp8_speedup", stock / figure("compiled, fp8"), ">=", 2.3),
        ("gpu.cached_speedup", stock / figure("compiled, fp8, adapted, cached"), ">=", 4.5),
        ("gpu.adapted_50_steps_s", 50 * adapted, "<=", 63),
    )
    for name, value, better, goal in goals:
        word = "inconclusive" if name == "gpu.adapted_over_base" and not math.isnan(adapted) else "not measured"
        if not math.isnan(value):
            benchmark.claim(name, value, better, goal)
        else:
            print(f"{name}\t{word}\t{better} {goal:g}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
