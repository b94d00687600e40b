"""Assembles the checkpoint that is part of the package from finished runs of `recipes/tiny`.

python -m likeness.training.export
"""

import argparse
import shutil
from pathlib import Path

from likeness import files, weights
from likeness.errors import WeightsError

RUN_NAMES = {
    "base": ("base_guided", "base"),
    "magic_mirror": ("magic_mirror_rollout", "magic_mirror_more", "magic_mirror"),
    "fantasy_id": ("fantasy_id_mentored", "fantasy_id"),
    "recognizer": ("recognizer",),
    "shape": ("shape",),
}
"""For each part the names of its runs; the first that exists is used."""
DECODER_RUN_NAMES = ("decoder_more", "decoder")
"""Runs whose VAE replaces that of the base; the latents are the same."""
OPTIONAL_PARTS = ("fantasy_id",)
"""Exported only if there is a run: the part exported before was trained over another base."""
BASE_INDEPENDENT_PARTS = ("recognizer", "shape")
"""Parts that do not depend on the base: without a run the part exported before is kept."""


def export_checkpoint(runs: Path, target: Path) -> Path:
    """Copy each run's model into `target` and list the checksums of all files.

    Args:
        runs: Folder of the runs, named after their recipes.
        target: The checkpoint; it is replaced.

    Returns:
        The file of checksums.

    Raises:
        WeightsError: A run has not finished, or an adapter was trained over another base than the exported one.
    """
    models = {part: _newest(runs, names) for part, names in RUN_NAMES.items()}
    for part in BASE_INDEPENDENT_PARTS:
        if not models[part].is_dir() and (target / part).is_dir():
            models[part] = target / part
    missing = [str(folder) for part, folder in models.items() if part not in OPTIONAL_PARTS and not folder.is_dir()]
    if missing:
        raise WeightsError(
            f"Not trained yet: {', '.join(missing)}. Run `likeness train` with recipes/tiny/*.toml first."
        )
    base = models.pop("base")
    models = {part: folder for part, folder in models.items() if folder.is_dir()}
    for folder in models.values():
        _refuse_other_base(folder, base)
    decoder_vae = _newest(runs, DECODER_RUN_NAMES) / "vae"
    with files.write_atomically(target, replaces_folder=True) as draft:
        shutil.copytree(base, draft)
        for part, folder in models.items():
            shutil.copytree(folder, draft / part)
        if decoder_vae.is_dir():
            shutil.rmtree(draft / "vae")
            shutil.copytree(decoder_vae, draft / "vae")
        weights.write_checksums(draft)
    return target / weights.CHECKSUMS_FILE


def _newest(runs: Path, names: tuple[str, ...]) -> Path:
    """The model of the first run that has one, or else the path of the last."""
    models = [runs / name / "model" for name in names]
    return next((folder for folder in models if folder.is_dir()), models[-1])


def _refuse_other_base(model: Path, base: Path) -> None:
    recipe = model.with_name("recipe.json")
    if not recipe.is_file():
        return
    trained_over = files.read_json(recipe)["settings"].get("base")
    if trained_over is not None and Path(trained_over).parent.name != base.parent.name:
        raise WeightsError(
            f"{model} was trained over {trained_over}, but {base} is exported. Train the recipe that continues over "
            f"{base.parent.name}, or move {base.parent} away."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Assemble the checkpoint of the package from finished runs.")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--target", type=Path, default=weights.CHECKPOINTS / "tiny")
    arguments = parser.parse_args()
    export_checkpoint(arguments.runs, arguments.target)


if __name__ == "__main__":
    main()
