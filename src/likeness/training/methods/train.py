"""Trains a method on a frozen base, stage by stage. A `MethodTrainingSpec` says which method."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from likeness import files
from likeness.errors import ConfigError, WeightsError
from likeness.faces.engines.registry import resolve_engine
from likeness.faces.geometry.layouts import EYE_CORNERS, LandmarkLayout
from likeness.identity.encoders.arcface import ArcFace
from likeness.identity.encoders.recognizer import IdentityRecognizer, Recognizer
from likeness.methods.magic_mirror import MagicMirror
from likeness.runtime import DTYPES, choose_training_dtype
from likeness.training.base.pipelines import read_base, read_transformer_config
from likeness.training.data.pairs import TrainingData, read_data
from likeness.training.data.prompts import TokenizedPrompts
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.engine.loop import load_final_weights, save_final_weights, train
from likeness.training.methods.prepare import prepare_recipe
from likeness.training.methods.settings import MethodRecipe, MethodStageSettings
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.methods.stage import MethodStage
from likeness.training.objectives.distillation import DistillationTeacher
from likeness.training.objectives.perturbed_guidance import MethodGuidance
from likeness.training.precompute.dataset import open_data
from likeness.training.precompute.prepare import describe_encoding, find_cache


def read_guidance(
    recipe: MethodRecipe, method_spec: MethodTrainingSpec, settings: MethodStageSettings
) -> MethodGuidance:
    """The guidance of a stage: the recipe's `guidance_teacher` over its `unguided` base."""
    assert recipe.unguided is not None
    assert recipe.guidance_teacher is not None
    pipe = read_base(recipe.unguided)
    method = method_spec.build(pipe.transformer.config, recipe.method)
    checkpoints.load_initial_weights(method, recipe.guidance_teacher)
    dtype = choose_training_dtype(settings.dtype)
    return MethodGuidance(pipe, method, layers=settings.perturbed_layers, dtype=dtype)


def read_teacher(
    base: Path, folder: Path, data: TrainingData, settings: MethodStageSettings, dtype: torch.dtype
) -> DistillationTeacher:
    """The distillation teacher of a stage: the Magic Mirror in `folder` over the pipeline in `base`.

    Raises:
        WeightsError: There is no such adapter or pipeline.
    """
    pipe = read_base(base)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"No adapter at {folder}, which has no config.json. Name a trained Magic Mirror as `teacher`."
        )
    method: Any = MagicMirror.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    method.eval().requires_grad_(False).attach(pipe)
    prompts = TokenizedPrompts(pipe, method, data.targets[settings.data])
    embeddings = data.references["train"]["embedding"]
    return DistillationTeacher(pipe, method, prompts, embeddings, scale=settings.teacher_scale, dtype=dtype)


def read_recognizer(source: Path | str, layout: LandmarkLayout = EYE_CORNERS) -> IdentityRecognizer:
    """The frozen recognizer of the identity loss.

    Args:
        source: Folder of a distilled recognizer, or the name of a face engine with ArcFace.
        layout: Of the data's landmarks.

    Raises:
        ResourceError: onnx is not installed.
        WeightsError: There is no such recognizer.
    """
    if isinstance(source, str):
        return ArcFace.of_engine(source, layout=layout)
    return Recognizer.load(source).requires_grad_(False).eval()


def train_method(
    recipe: MethodRecipe,
    folder: Path,
    cache: Path,
    method_spec: MethodTrainingSpec,
    *,
    make_stage: Callable[..., MethodStage] = MethodStage,
) -> Path:
    """Train a method and write its adapter to `folder/model`.

    Raises:
        ConfigError: The recipe lacks a folder that one of its stages needs, or `without` names no stage.
    """
    _check_recipe(recipe)
    logger = TrainingLogger(folder, method_spec.name)
    device, dtype = distributed.local_device(recipe.device), DTYPES[recipe.base_dtype]
    recognizer = read_recognizer(recipe.recognizer, _landmark_layout(recipe))
    torch.manual_seed(recipe.seed)
    method = method_spec.build(read_transformer_config(recipe.base), recipe.method, recipe.profile)
    if recipe.data is None:
        pipe = read_base(recipe.base, dtype=dtype, device=device)
        data = read_data(recipe.puppets(), pipe, cache, logger)
    else:
        files_cache = find_cache(cache)
        plan = prepare_recipe(recipe, method, method_spec, cache, logger, device)
        data = open_data(plan, files_cache, lambda shards: method_spec.choose_crops(method, shards))
        pipe = read_base(recipe.base, dtype=dtype, device=device, skipped_components=("text_encoder",))
    if recipe.start:
        checkpoints.load_initial_weights(method, recipe.start)
    method_spec.prepare(method, data, from_scratch=recipe.start is None)
    method_spec.train_first(method, data, folder)
    method.attach(pipe, dtype=torch.float32)
    method.trainable_parameters()
    modules: dict[str, nn.Module] = {method_spec.name: method}
    for number, settings in enumerate(recipe.stages):
        stage_folder, seed = folder / settings.name, recipe.seed + number
        if settings.name in recipe.without or load_final_weights(stage_folder, modules):
            continue
        stage = make_stage(pipe, method, method_spec, recognizer, settings, data, seed)
        if settings.attention_guidance:
            stage.guidance = read_guidance(recipe, method_spec, settings)
        if settings.teacher_scale:
            assert recipe.teacher is not None
            stage.teacher = read_teacher(recipe.base, recipe.teacher, data, settings, stage.dtype)
        train(stage, settings, stage_folder, seed=seed)
        save_final_weights(stage_folder, modules)
    target = folder / "model"
    if distributed.rank() == 0:
        with files.write_atomically(target, replaces_folder=True) as draft:
            copy.deepcopy(method).half().save_pretrained(draft)
        logger.info(f"adapter written to {target}")
    return target


def _landmark_layout(recipe: MethodRecipe) -> LandmarkLayout:
    """The landmarks of the data: those of puppets, or of the engine that reads files."""
    if recipe.data is None:
        return EYE_CORNERS
    return resolve_engine(describe_encoding(recipe.data, recipe.base, recipe.recognizer).engine).layout


def _check_recipe(recipe: MethodRecipe) -> None:
    names = [stage.name for stage in recipe.stages]
    unknown = set(recipe.without) - set(names)
    if unknown:
        raise ConfigError(f"`without` names {', '.join(sorted(unknown))}; stages are {names}.")
    guided = [stage.name for stage in recipe.stages if stage.attention_guidance]
    if guided and (recipe.unguided is None or recipe.guidance_teacher is None):
        raise ConfigError(
            f"Stage `{guided[0]}` has attention_guidance. Name the base before it learned guidance as the recipe's "
            "`unguided`, and an adapter that was trained over that base as its `guidance_teacher`."
        )
    distilled = [stage.name for stage in recipe.stages if stage.teacher_scale]
    if distilled and recipe.teacher is None:
        raise ConfigError(
            f"Stage `{distilled[0]}` has a teacher_scale. Name a Magic Mirror adapter over `base` as the recipe's "
            "`teacher`."
        )
