"""Puts trained parts together as the checkpoint that the package carries. Run it after all recipes of `recipes/tiny`.

python -m likeness.training.ship
"""

import argparse
import shutil
from pathlib import Path

from likeness import weights
from likeness.errors import WeightsError

ADDED = ("magic_mirror", "recognizer", "shape")
"""Runs whose models become folders of their own beside the parts of the pipeline."""
OPTIONAL = ("fantasy_id",)
"""The same, where there is such a run. What shipped before is left out: it was trained over another base."""
INDEPENDENT = ("recognizer", "shape")
"""Those of them that know nothing of the base: what ships already stays where there is no newer run."""


def ship(runs: Path, target: Path) -> Path:
    """Copy each run's model into `target` and list the checksums of all files.

    Args:
        runs: Folder of the runs `base`, `magic_mirror`, `recognizer` and `shape`, and of `fantasy_id` if there is one; a
            run `guided` (base_guided.toml) replaces `base`, the VAE of a run `decoder` theirs.
        target: The checkpoint; what was there is replaced.

    Returns:
        The list of checksums.

    Raises:
        WeightsError: A run has not finished.
    """
    models = {name: runs / name / "model" for name in ("base", *ADDED)}
    guided = runs / "guided" / "model"
    if guided.is_dir():
        models["base"] = guided
    for name in INDEPENDENT:
        if not models[name].is_dir() and (target / name).is_dir():
            models[name] = target / name
    absent = [str(folder) for folder in models.values() if not folder.is_dir()]
    if absent:
        raise WeightsError(
            f"Not trained yet: {', '.join(absent)}. Run `likeness train` with recipes/tiny/*.toml first."
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(models["base"], partial)
    models |= {name: runs / name / "model" for name in OPTIONAL if (runs / name / "model").is_dir()}
    for name in (*ADDED, *OPTIONAL):
        if name in models:
            shutil.copytree(models[name], partial / name)
    sharpened = runs / "decoder" / "model" / "vae"
    if sharpened.is_dir():
        shutil.rmtree(partial / "vae")
        shutil.copytree(sharpened, partial / "vae")
    weights.write_checksums(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target / weights.CHECKSUMS_FILE


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the checkpoint that ships from finished runs.")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--target", type=Path, default=weights.CHECKPOINTS / "tiny")
    arguments = parser.parse_args()
    ship(arguments.runs, arguments.target)


if __name__ == "__main__":
    main()
