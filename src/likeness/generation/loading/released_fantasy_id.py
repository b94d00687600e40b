"""Loads the released FantasyID: its image-to-video base, the method, and the files that both need."""

from pathlib import Path
from typing import Any

import torch

from likeness import weights
from likeness.backbones.image_to_video import load_image_pipeline
from likeness.generation.loading.presets import Preset
from likeness.generation.loading.source import RELEASED, find_files
from likeness.identity.face_shape.mean_head import MeanHeadShape
from likeness.identity.mesh.published_mesh import read_mesh
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.fantasy_id.published import find_transformer, load_published
from likeness.runtime import choose_device, choose_dtype
from likeness.weights.hashes import known_sha256


def load_released_preset(
    preset: Preset, backbone: str | Path | None, *, device: str, moves_to_device: bool
) -> tuple[Any, FantasyID, Preset, dict[str, str]]:
    """Load the released weights.

    Returns:
        The pipeline, the method, the preset with the weights' name and licence, and checksums for the record.
    """
    files = find_files(None if backbone is None else Path(backbone))
    pipeline, method = load_released(files, device=choose_device(device), moves_to_device=moves_to_device)
    licence = weights.MODELS[RELEASED].licence
    own = {
        "weights": RELEASED,
        "backbone_name": "CogVideoX-5B-I2V, as FantasyID was released",
        "licence": licence,
    }
    return pipeline, method, preset.model_copy(update=own), _checksums(files)


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
