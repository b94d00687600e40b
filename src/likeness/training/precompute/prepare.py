"""Prepares the files of a method's recipe: plans what is needed, encodes what is missing, opens the result."""

import hashlib
from collections.abc import Sequence
from functools import cache as cached
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likeness import files
from likeness.backbones.tokenizer import load_tokenizer
from likeness.errors import WeightsError
from likeness.faces.engines.registry import resolve_engine
from likeness.methods.method import Method
from likeness.training.base.pipelines import read_base
from likeness.training.data.prompts import tokenize, tokenize_prompt
from likeness.training.engine.logging import TrainingLogger
from likeness.training.files.settings import FileDataSettings
from likeness.training.precompute.encode import LatentEncoder, TextEncoder
from likeness.training.precompute.plan import DataPlan, EncodingSettings, plan_data
from likeness.training.precompute.run import Cache, Encoders, precompute
from likeness.weights.hashes import cached_sha256


def find_cache(folder: Path) -> Cache:
    """The cache below the folder of all caches; items of several recipes share it."""
    return Cache(folder=folder / "files")


def prepare_files(
    settings: FileDataSettings,
    base: Path,
    method: Method,
    cache: Cache,
    logger: TrainingLogger,
    *,
    recognizer: Path | str,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    needs_class_word: bool,
) -> DataPlan:
    """Encode what is missing of a recipe's files; no model is loaded if nothing is.

    Args:
        settings: Of the data.
        base: Folder of the pipeline.
        method: Tokenizes prompts; it need not be attached.
        cache: Where encoded items are kept.
        logger: For progress.
        recognizer: Of the identity loss; its engine reads faces unless `settings.engine` names one.
        device: Where the VAE and the text encoder run.
        dtype: Of the VAE's activations and the text encoder.
        seed: Selects the people held out for validation.
        needs_class_word: Whether the method writes the person into the prompt.
    """
    encoding = describe_encoding(settings, base, recognizer)
    plan = plan_data(settings, encoding, seed=seed, needs_class_word=needs_class_word)
    pipeline = cached(lambda: read_base(base, dtype=dtype, device=device, skipped_components=("transformer",)))
    tokenizer = cached(lambda: load_tokenizer(base / "tokenizer"))
    length = _read_config(base / "transformer")["max_text_seq_length"]

    def tokenize_all(prompts: Sequence[str]) -> list[Tensor]:
        rows: list[Tensor] = []
        for prompt in prompts:
            if not prompt:
                rows.append(tokenize(tokenizer(), [""], length)[0])
                continue
            tokenized = tokenize_prompt(tokenizer(), method, prompt, length)
            rows += [tokenized.caption_ids, *tokenized.prompt_ids.values()]
        return rows

    encoders = Encoders(
        latents=cached(lambda: LatentEncoder(pipeline().vae, device, dtype)),
        text=cached(lambda: TextEncoder(pipeline().text_encoder, device)),
        engine=lambda: resolve_engine(encoding.engine),
        tokenize=tokenize_all,
    )
    precompute(plan, cache, encoders, logger)
    return plan


def describe_encoding(settings: FileDataSettings, base: Path, recognizer: Path | str) -> EncodingSettings:
    """What encoded items depend on beside the media.

    Raises:
        WeightsError: The base lacks a part.
    """
    config = _read_config(base / "transformer")
    engine = settings.engine or (recognizer if isinstance(recognizer, str) else "dlib")
    return EncodingSettings(
        vae=_hash_folder(base / "vae"),
        text_encoder=_hash_folder(base / "text_encoder", base / "tokenizer"),
        engine=engine,
        frame_step=4 * int(config.get("patch_size_t") or 1) if config.get("patch_size_t") else 8,
        side_step_px=8 * int(config["patch_size"]),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return files.read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise WeightsError(f"No model at {folder} ({error}). Set `base` to the folder of a pipeline.") from error


def _hash_folder(*folders: Path) -> str:
    """A hash of the names and contents of the files of a model."""
    digest = hashlib.sha256()
    for folder in folders:
        if not folder.is_dir():
            raise WeightsError(f"{folder} does not exist. Set `base` to the folder of a whole pipeline.")
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            digest.update(f"{file.relative_to(folder).as_posix()}\0{cached_sha256(file)}\0".encode())
    return digest.hexdigest()[:16]
