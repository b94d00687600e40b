"""Loads the published checkpoint of FantasyID: its image-to-video base, the method, and the files that both need."""

from pathlib import Path
from typing import Any

import torch

from likeness import weights
from likeness.backbones.image_to_video import load_image_pipeline
from likeness.generation.loading.presets import Preset
from likeness.generation.loading.resolve_weights import PUBLISHED_FANTASY_ID, resolve_published_files
from likeness.identity.face_shape.mean_head import MeanHeadShape
from likeness.identity.mesh.published_mesh import read_mesh
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.fantasy_id.published import find_transformer, load_published
from likeness.runtime import choose_device, choose_dtype
from likeness.weights.hashes import cached_sha256


def load_published_preset(
    preset: Preset, backbone: str | Path | None, *, device: str, moves_to_device: bool
) -> tuple[Any, FantasyID, Preset, dict[str, str]]:
    """Load the published checkpoint.

    Returns:
        The pipeline, the method, the preset with the weights' name and licence, and checksums for the record.
    """
    files = resolve_published_files(None if backbone is None else Path(backbone))
    pipeline, method = load_published_checkpoint(files, device=choose_device(device), moves_to_device=moves_to_device)
    licence = weights.MODELS[PUBLISHED_FANTASY_ID].licence
    update = {
        "weights": PUBLISHED_FANTASY_ID,
        "backbone_name": "CogVideoX-5B-I2V, as FantasyID was released",
        "licence": licence,
    }
    return pipeline, method, preset.model_copy(update=update), _checksums(files)


def load_published_checkpoint(
    files: dict[str, Path], *, device: torch.device, moves_to_device: bool = True
) -> tuple[Any, FantasyID]:
    """Load base and method strictly, without attaching them.

    Args:
        files: The result of `resolve_published_files`.
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
    root = files["backbone"]
    folders = (find_transformer(root), root / "vae", root / "text_encoder")
    suffixes = {".safetensors", ".bin"}
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in suffixes]
    checksums = {f"backbone/{path.relative_to(root).as_posix()}": cached_sha256(path) for path in paths}
    return checksums | {f"{role}/{files[role].name}": cached_sha256(files[role]) for role in ("mesh", "eva")}
