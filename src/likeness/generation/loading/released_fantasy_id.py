"""Loads the released FantasyID: its image-to-video base, the method, and the files that both need."""

from pathlib import Path
from typing import Any

import torch

from likeness import weights
from likeness.backbones.image_to_video import load_image_pipeline
from likeness.backbones.transformer_config import TRANSFORMERS
from likeness.errors import WeightsError
from likeness.generation.loading.presets import Preset
from likeness.generation.loading.source import RELEASED
from likeness.identity.face_shape.mean_head import MeanHeadShape
from likeness.identity.mesh.published_mesh import MESH_FILE, read_mesh
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.fantasy_id.published import EVA_FILE, find_transformer, load_published
from likeness.runtime import choose_device, choose_dtype
from likeness.weights.hashes import known_sha256

WEIGHTS, MESH, EVA = RELEASED, "fantasyid-mesh", "eva02-clip-l-336"
"""Names in the registry of weights."""


def load_released_preset(
    preset: Preset, backbone: str | Path | None, *, device: str, moves_to_device: bool
) -> tuple[Any, FantasyID, Preset, dict[str, str]]:
    """Load the released weights.

    Returns:
        The pipeline, the method, the preset with the weights' name and licence, and checksums for the record.
    """
    files = find_files(None if backbone is None else Path(backbone))
    pipeline, method = load_released(files, device=choose_device(device), moves_to_device=moves_to_device)
    licence = weights.MODELS[WEIGHTS].licence
    own = {
        "weights": WEIGHTS,
        "backbone_name": "CogVideoX-5B-I2V, as FantasyID was released",
        "licence": licence,
    }
    return pipeline, method, preset.model_copy(update=own), _checksums(files)


def find_files(folder: Path | None = None) -> dict[str, Path]:
    """The folder and files from which the released profile is loaded.

    Args:
        folder: The published folder; by default that of `likeness models pull`.

    Raises:
        WeightsError: Files are missing; the message lists them and the commands that download them.
    """
    home = folder or weights.entry(WEIGHTS).folder
    mesh, eva = (
        next(
            (place for place in (home / name, weights.entry(other).folder / name.name) if place.is_file()),
            None,
        )
        for name, other in ((MESH_FILE, MESH), (EVA_FILE, EVA))
    )
    parts = [
        (
            any((home / name / "config.json").is_file() for name in TRANSFORMERS),
            f"{home}/transformer",
            WEIGHTS,
        ),
        *(
            ((home / name).is_file(), str(home / name), WEIGHTS)
            for name in ("vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
        ),
        ((home / "tokenizer").is_dir(), str(home / "tokenizer"), WEIGHTS),
        (mesh is not None, str(home / MESH_FILE), MESH),
        (eva is not None, str(home / EVA_FILE), EVA),
    ]
    missing = [(path, name) for is_here, path, name in parts if not is_here]
    if missing:
        listed = "".join(f"\n  {path} is missing (weights `{name}`)" for path, name in missing)
        commands = dict.fromkeys(
            f"`likeness models pull {name} --preset {weights.MODELS[name].preset}`" for _, name in missing
        )
        raise WeightsError(
            f"The released FantasyID is not whole:{listed}\n"
            f"Run {' and '.join(commands)}, or put the files there yourself."
        )
    assert mesh is not None
    assert eva is not None
    return {"backbone": home, "mesh": mesh, "eva": eva}


def load_released(
    files: dict[str, Path], *, device: torch.device, moves_to_device: bool = True
) -> tuple[Any, FantasyID]:
    """Load base and method strictly, without attaching them.

    Args:
        files: The result of `find_files`.
        device: The device of computation, which decides the dtype.
        moves_to_device: Move the pipeline there; otherwise a memory plan places it later.

    Raises:
        WeightsError: A file is damaged, or its tensors are not those of the published architecture.
    """
    dtype = choose_dtype("auto", device)
    transformer, method = load_published(files["backbone"], read_mesh(files["mesh"]), eva=files["eva"], dtype=dtype)
    pipeline = load_image_pipeline(files["backbone"], transformer, dtype=dtype)
    method.shape_source = MeanHeadShape(method.descriptor.vertex_encoder.template.float().cpu().numpy())
    return (pipeline.to(device) if moves_to_device else pipeline), method


def _checksums(files: dict[str, Path]) -> dict[str, str]:
    home = files["backbone"]
    folders = (find_transformer(home), home / "vae", home / "text_encoder")
    suffixes = {".safetensors", ".bin"}
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in suffixes]
    checksums = {f"backbone/{path.relative_to(home).as_posix()}": known_sha256(path) for path in paths}
    return checksums | {f"{role}/{files[role].name}": known_sha256(files[role]) for role in ("mesh", "eva")}
