"""Trains a method on a frozen base: an image stage, then a video stage. Which method, a `MethodTrainingSpec` says."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from likeness import files
from likeness.errors import ConfigError
from likeness.identity.encoders.recognizer import Recognizer
from likeness.runtime import choose_training_dtype
from likeness.training.data.pairs import read_base, read_data
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.logging import Journal
from likeness.training.engine.loop import finish, finished, train
from likeness.training.methods.settings import MethodRecipe, MethodStageSettings
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.methods.stage import MethodStage
from likeness.training.objectives.distillation import DistillationTeacher
from likeness.training.objectives.perturbed_guidance import MethodGuidance


def read_guidance(
    recipe: MethodRecipe, method_spec: MethodTrainingSpec, settings: MethodStageSettings
) -> MethodGuidance:
    """What guides a stage: the recipe's `guidance_teacher` over its `unguided`."""
    assert recipe.unguided is not None
    assert recipe.guidance_teacher is not None
    pipe = read_base(recipe.unguided)
    teacher = method_spec.build(pipe.transformer.config, recipe.method)
    checkpoints.start_from(teacher, recipe.guidance_teacher)
    return MethodGuidance(
        pipe,
        teacher,
        layers=settings.perturbed_layers,
        dtype=choose_training_dtype(settings.dtype),
    )


def train_method(
    recipe: MethodRecipe,
    folder: Path,
    cache: Path,
    method_spec: MethodTrainingSpec,
    *,
    make_stage: Callable[..., MethodStage] = MethodStage,
) -> Path:
    """Train a method and write its adapter to `folder/model`."""
    unknown = set(recipe.without) - {stage.name for stage in recipe.stages}
    if unknown:
        raise ConfigError(
            f"`without` names {', '.join(sorted(unknown))}; stages are {[s.name for s in recipe.stages]}."
        )
    guided = [stage.name for stage in recipe.stages if stage.attention_guidance]
    if guided and (recipe.unguided is None or recipe.guidance_teacher is None):
        raise ConfigError(
            f"Stage `{guided[0]}` has attention_guidance. Name the base before it learned guidance as the recipe's "
            "`unguided`, and an adapter that was trained over that base as its `guidance_teacher`."
        )
    taught = [stage.name for stage in recipe.stages if stage.teacher_scale]
    if taught and recipe.teacher is None:
        raise ConfigError(
            f"Stage `{taught[0]}` has a teacher_scale. Name a Magic Mirror adapter over `base` as the recipe's `teacher`."
        )
    journal = Journal(folder, method_spec.name)
    pipe, recognizer = read_base(recipe.base), Recognizer.load(recipe.recognizer).requires_grad_(False).eval()
    torch.manual_seed(recipe.seed)
    method = method_spec.build(pipe.transformer.config, recipe.method)
    sets = {"faces": recipe.faces, "validation": recipe.validation, "clips": recipe.clips}
    data = read_data(sets, pipe, cache, journal)
    if recipe.start:
        checkpoints.start_from(method, recipe.start)
    method_spec.prepare(method, data, is_new=recipe.start is None)
    method_spec.begin(method, data, folder)
    method.attach(pipe)
    method.trainable_parameters()
    modules: dict[str, nn.Module] = {method_spec.name: method}
    for number, settings in enumerate(recipe.stages):
        place = folder / settings.name
        if settings.name in recipe.without or finished(place, modules):
            continue
        stage = make_stage(pipe, method, method_spec, recognizer, settings, data, recipe.seed + number)
        if settings.attention_guidance:
            stage.guidance = read_guidance(recipe, method_spec, settings)
        if settings.teacher_scale:
            assert recipe.teacher is not None
            scale, dtype = settings.teacher_scale, stage.dtype
            stage.teacher = DistillationTeacher(
                recipe.base, recipe.teacher, data, settings.data, scale=scale, dtype=dtype
            )
        train(stage, settings, place, seed=recipe.seed + number)
        finish(place, modules)
    target = folder / "model"
    if distributed.rank() == 0:
        with files.write_atomically(target, replaces_folder=True) as draft:
            copy.deepcopy(method).half().save_pretrained(draft)
        journal.say(f"adapter written to {target}")
    return target
