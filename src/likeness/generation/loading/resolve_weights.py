"""Which weights a load will use, whether they are there, and what their configs refuse: all without torch."""

from pathlib import Path

from likeness import weights
from likeness.backbones.transformer_config import TRANSFORMERS, read_transformer_config, refuse_frames
from likeness.errors import ConfigError, WeightsError
from likeness.generation.loading.presets import Preset
from likeness.weights.local_files import cached_hub_folder

PUBLISHED_FANTASY_ID, FLAME_HIERARCHY, EVA02_CLIP = "fantasyid", "fantasyid-mesh", "eva02-clip-l-336"
"""Names in the registry of weights: FantasyID's published checkpoint, the hierarchy of FLAME meshes that it reads, and
its image encoder."""
_FLAME_HIERARCHY_FILE = weights.MODELS[FLAME_HIERARCHY].files[0].path
_EVA02_CLIP_FILE = "face_encoder" / weights.MODELS[EVA02_CLIP].files[0].path
"""Files of mesh and image encoder in the published folder."""
_RECIPE_FOLDERS = ("cogvideox_2b", "cogvideox_5b")
"""Folders of `recipes/` for backbones other than tiny."""


def uses_published_checkpoint(
    preset: Preset, method: str, backbone: str | Path | None, adapter: str | Path | None
) -> bool:
    """Whether a load uses the published checkpoint of FantasyID.

    `fantasy_id` with the preset `research` does, unless an adapter is given or exists in the backbone's folder. So
    does a backbone given as a folder in the published layout.
    """
    if method != "fantasy_id" or adapter is not None:
        return False
    if backbone is not None:
        return is_published(Path(backbone))
    return preset.name == "research" and not (Path(preset.backbone) / method).is_dir()


def is_published(folder: Path) -> bool:
    """Whether a folder holds a transformer with FantasyID's published settings."""
    return "is_train_face" in (read_transformer_config(folder) or {})


def check_frames(
    frames: int, preset: Preset, *, method: str, backbone: str | Path | None, adapter: str | Path | None = None
) -> None:
    """Refuse a number of frames that the backbone does not make, from its config alone.

    A folder that does not exist, or a hub name that is not cached, is not checked here; `Likeness` repeats the check.

    Raises:
        ConfigError: The backbone has learned positions for another number of frames.
    """
    config = read_transformer_config(_backbone_folder(preset, method, backbone, adapter))
    if config is not None:
        refuse_frames(config, frames)


def check_weights(preset: Preset, method: str, backbone: str | Path | None, adapter: str | Path | None) -> None:
    """Refuse a load whose weights are not there, by the names and sizes of files. `Likeness.load` repeats the check.

    Raises:
        WeightsError: A file or folder is missing; the message names the command that downloads or trains it.
    """
    if uses_published_checkpoint(preset, method, backbone, adapter):
        resolve_published_files(None if backbone is None else Path(backbone))
        return
    refuse_missing_adapter(adapter_folder(method, adapter, backbone or preset.backbone), method)
    if backbone is None:
        locate_backbone(preset)


def locate_backbone(preset: Preset) -> Path:
    """The folder of a preset's backbone.

    Raises:
        WeightsError: Files are missing; the message names the command that downloads them.
    """
    return weights.locate(preset.weights)


def adapter_folder(method: str | type, adapter: str | Path | None, backbone: str | Path) -> Path:
    """The folder of a method's weights: `adapter`, or the folder of the method's name inside the backbone's.

    Raises:
        ConfigError: A custom class has no name, so its folder must be given.
    """
    if adapter:
        return Path(adapter)
    if isinstance(method, str):
        return Path(backbone) / method
    raise ConfigError(
        f"{method.__name__} has no place in the folder of a backbone. Name its folder: "
        f"`Likeness.load(method={method.__name__}, adapter=...)`."
    )


def refuse_missing_adapter(folder: Path, method: str | type) -> None:
    """Refuse a folder of a method's weights that does not exist.

    Raises:
        WeightsError: It does not.
    """
    if not folder.is_dir():
        backbone = folder.parent.name.replace("-", "_")
        recipes = backbone if backbone in _RECIPE_FOLDERS else "tiny"
        recipe = f"recipes/{recipes}/{method}.toml" if isinstance(method, str) else "your recipe"
        raise WeightsError(
            f"No adapter at {folder}. A preset needs a backbone and the method's own weights: train them with "
            f"`likeness train {recipe}`, or name their folder with `--adapter`. `likeness doctor` lists what is here."
        )


def resolve_published_files(folder: Path | None = None) -> dict[str, Path]:
    """The folder and files from which the published checkpoint is loaded.

    Args:
        folder: The published folder; by default that of `likeness models pull`.

    Raises:
        WeightsError: Files are missing; the message lists them and the commands that download them.
    """
    root = folder or weights.entry(PUBLISHED_FANTASY_ID).folder
    mesh, eva = (
        next(
            (path for path in (root / name, weights.entry(entry_name).folder / name.name) if path.is_file()),
            None,
        )
        for name, entry_name in ((_FLAME_HIERARCHY_FILE, FLAME_HIERARCHY), (_EVA02_CLIP_FILE, EVA02_CLIP))
    )
    required = [
        (
            any((root / name / "config.json").is_file() for name in TRANSFORMERS),
            f"{root}/transformer",
            PUBLISHED_FANTASY_ID,
        ),
        *(
            ((root / name).is_file(), str(root / name), PUBLISHED_FANTASY_ID)
            for name in ("vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
        ),
        ((root / "tokenizer").is_dir(), str(root / "tokenizer"), PUBLISHED_FANTASY_ID),
        (mesh is not None, str(root / _FLAME_HIERARCHY_FILE), FLAME_HIERARCHY),
        (eva is not None, str(root / _EVA02_CLIP_FILE), EVA02_CLIP),
    ]
    missing = [(path, name) for is_here, path, name in required if not is_here]
    if missing:
        listed = "".join(f"\n  {path} is missing (weights `{name}`)" for path, name in missing)
        commands = dict.fromkeys(
            f"`likeness models pull {name} --preset {weights.MODELS[name].preset}`" for _, name in missing
        )
        raise WeightsError(
            f"FantasyID's published checkpoint is not whole:{listed}\n"
            f"Run {' and '.join(commands)}, or put the files there yourself."
        )
    assert mesh is not None
    assert eva is not None
    return {"backbone": root, "mesh": mesh, "eva": eva}


def _backbone_folder(preset: Preset, method: str, backbone: str | Path | None, adapter: str | Path | None) -> Path:
    if backbone is None:
        is_published = uses_published_checkpoint(preset, method, None, adapter)
        return weights.entry(PUBLISHED_FANTASY_ID).folder if is_published else Path(preset.backbone)
    return Path(backbone) if Path(backbone).is_dir() else cached_hub_folder(str(backbone)) or Path(backbone)
