"""Report what this machine can run: cores, memory, GPU, versions, weights, and combinations of preset and method."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from likeness.errors import WeightsError
from likeness.generation.loading.presets import METHODS, PRESETS, Preset
from likeness.generation.loading.resolve_weights import (
    PUBLISHED_FANTASY_ID,
    resolve_published_files,
    uses_published_checkpoint,
)
from likeness.runtime import COGVIDEOX_2B_SIZES, COGVIDEOX_5B_SIZES, HEADROOM, describe_machine, predict_all_plans
from likeness.weights import entry, locate, names, verify

PACKAGES = ("likeness", "torch", "diffusers", "transformers", "numpy", "av", "dlib-bin", "numba")
MODEL_SIZES = {"open": COGVIDEOX_2B_SIZES, "research": COGVIDEOX_5B_SIZES}
"""Model sizes of the presets that need a GPU."""


def collect_environment(gpu_memory_gb: float | None = None) -> dict[str, Any]:
    """Collect what `likeness doctor` reports of the machine, the packages and the weights. JSON-able.

    Args:
        gpu_memory_gb: Plan for a GPU with this much memory instead of the present one.

    Returns:
        `card_gb`: memory of the GPU that is planned for, in GB (10^9 bytes), 0 without one. `plans`: the entries of
        `describe_plans` for each preset that needs a GPU. `machine`: `describe_machine` and `num_usable_cores`.
        `versions`: version by package, None if it is not installed. `weights`: the entries of `verify_all_weights`.
        `runs`: the entry of `describe_run` for each preset and method.
    """
    machine = describe_machine() | {"num_usable_cores": num_usable_cores()}
    weights = verify_all_weights()
    detected_gb = largest_gpu_gb(machine)
    return {
        "card_gb": gpu_memory_gb or detected_gb,
        "plans": [row for preset in MODEL_SIZES for row in describe_plans(preset, gpu_memory_gb or detected_gb)],
        "machine": machine,
        "versions": {name: _version(name) for name in PACKAGES},
        "weights": weights,
        "runs": [describe_run(preset, method, machine, weights) for preset in PRESETS.values() for method in METHODS],
    }


def num_usable_cores() -> int:
    """Number of cores available to this process, which a container may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def verify_all_weights() -> list[dict[str, Any]]:
    """Name, preset, licence, size and state of all weights that ship or are installed, every byte checked.

    `state` is `verified` or `damaged`; `problem` is the error message, or None.
    """
    rows = []
    for name in names():
        row: dict[str, Any] = {"name": name, "preset": "tiny", "licence": "unknown", "size_bytes": 0}
        try:
            item = entry(name)
            row |= {"preset": item.preset, "licence": item.licence, "size_bytes": item.size_bytes}
            verify(name)
        except WeightsError as error:
            rows.append(row | {"state": "damaged", "problem": str(error)})
        else:
            rows.append(row | {"state": "verified", "problem": None})
    return rows


def largest_gpu_gb(machine: dict[str, Any]) -> float:
    """Memory of the largest GPU in GB (10^9 bytes); 0 without one."""
    return max((gpu["memory_bytes"] / 1e9 for gpu in machine["gpus"]), default=0.0)


def describe_plans(preset: str, gpu_memory_gb: float) -> list[dict[str, Any]]:
    """Every memory plan of a preset with its predicted peak, and the plan chosen for a GPU with `gpu_memory_gb`.

    Returns:
        One dictionary for each plan, in GB (10^9 bytes): `text_gb`, `denoise_gb` and `decode_gb` (memory of the GPU in
        each phase), `peak_gb` (the largest of them), `card_gb` (the smallest GPU that it fits, with `HEADROOM`) and
        `host_gb`; `is_chosen` marks the first plan that fits.
    """
    predictions = predict_all_plans(MODEL_SIZES[preset])
    chosen = next((prediction for prediction in predictions if prediction.fits(gpu_memory_gb * 1e9)), None)
    return [
        {
            "preset": preset,
            "plan": prediction.plan.name,
            "sentence": prediction.plan.sentence,
            "text_gb": prediction.text_bytes / 1e9,
            "denoise_gb": prediction.denoise_bytes / 1e9,
            "decode_gb": prediction.decode_bytes / 1e9,
            "peak_gb": prediction.peak_bytes / 1e9,
            "card_gb": prediction.peak_bytes * HEADROOM / 1e9,
            "host_gb": prediction.host_bytes / 1e9,
            "is_chosen": prediction is chosen,
        }
        for prediction in predictions
    ]


def describe_run(preset: Preset, method: str, machine: dict[str, Any], weights: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether `preset` with `method` runs on this machine (`can_run`), and the first `reason` if not."""
    row = {
        "preset": preset.name,
        "method": method,
        "backbone": preset.backbone_name,
        "licence": preset.licence,
    }
    damaged = [item["name"] for item in weights if item["preset"] == preset.name and item["state"] != "verified"]
    gpu_memory_gb = largest_gpu_gb(machine)
    required_gpu_gb = _required_gpu_gb(preset.name)
    if damaged:
        reason = f"weights not whole: {', '.join(damaged)}"
    elif preset.is_bundled and not (Path(preset.backbone) / method).is_dir():
        reason = f"no weights at {Path(preset.backbone) / method}"
    elif gpu_memory_gb < required_gpu_gb:
        here = f"{gpu_memory_gb:.0f} GB" if gpu_memory_gb else "none"
        reason = f"needs a GPU with about {required_gpu_gb:.0f} GB, here is {here}"
    elif uses_published_checkpoint(preset, method, None, None):
        reason = _problem_of_published_checkpoint()
        if reason is None:
            return row | {"can_run": True, "reason": "ready"}
    elif not preset.is_bundled and not _is_installed(preset):
        reason = f"its weights are not here; `likeness models pull {preset.weights}` brings them"
    elif not preset.is_bundled:
        reason = f"no adapter for {preset.backbone_name} is published; train one and name it with --adapter"
    else:
        return row | {"can_run": True, "reason": "ready"}
    return row | {"can_run": False, "reason": reason}


def _problem_of_published_checkpoint() -> str | None:
    try:
        resolve_published_files()
    except WeightsError:
        return f"its weights are not here; `likeness models pull {PUBLISHED_FANTASY_ID} --preset research` brings them"
    return None


def _required_gpu_gb(preset: str) -> float:
    """Memory of the smallest GPU that any plan of this preset fits, in GB; 0 for tiny."""
    if preset not in MODEL_SIZES:
        return 0.0
    return min(prediction.peak_bytes for prediction in predict_all_plans(MODEL_SIZES[preset])) * HEADROOM / 1e9


def _is_installed(preset: Preset) -> bool:
    try:
        locate(preset.weights)
    except WeightsError:
        return False
    return True


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
