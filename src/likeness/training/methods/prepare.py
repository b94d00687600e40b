"""Encodes the files of a method's recipe."""

from pathlib import Path
from typing import Any

import torch

from likeness.errors import ConfigError
from likeness.methods.method import Method
from likeness.runtime import DTYPES
from likeness.training.base.pipelines import read_transformer_config
from likeness.training.engine import distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.precompute.plan import DataPlan
from likeness.training.precompute.prepare import find_cache, prepare_files


def precompute_recipe(recipe: Any, folder: Path, cache: Path, *, verify: bool = False) -> Path:
    """Encode what is missing of the files of a recipe; returns the folder of the cache.

    Raises:
        ConfigError: The recipe has no files.
    """
    if not isinstance(recipe, MethodRecipe) or recipe.data is None:
        raise ConfigError("The recipe has no `data` with files, so there is nothing to encode. Use `likeness train`.")
    logger = TrainingLogger(folder, "precompute")
    files_cache = find_cache(cache)
    if verify and distributed.rank() == 0:
        broken = files_cache.store.verify()
        logger.info(f"{len(broken)} damaged shards were removed" + "".join(f"\n  {path}" for path in broken[:20]))
    distributed.barrier()
    method_spec = recipe.training_spec()
    with torch.device("meta"):  # Only its tokenization is needed.
        method = method_spec.build(read_transformer_config(recipe.base), recipe.method, recipe.profile)
    device = distributed.local_device(recipe.device)
    prepare_recipe(recipe, method, method_spec, cache, logger, device)
    return files_cache.folder


def prepare_recipe(
    recipe: MethodRecipe,
    method: Method,
    method_spec: MethodTrainingSpec,
    cache: Path,
    logger: TrainingLogger,
    device: torch.device,
) -> DataPlan:
    """Encode what is missing of the files of a recipe."""
    assert recipe.data is not None
    return prepare_files(
        recipe.data,
        recipe.base,
        method,
        find_cache(cache),
        logger,
        recognizer=recipe.recognizer,
        device=device,
        dtype=DTYPES[recipe.base_dtype],
        seed=recipe.seed,
        needs_class_word=method_spec.needs_class_word,
    )
