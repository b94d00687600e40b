"""Trains a method on a frozen base: an image stage, then a video stage. Which method, a `Lesson` says."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from likeness import files
from likeness.errors import ConfigError
from likeness.identity.recognizer import Recognizer
from likeness.runtime import choose_training_dtype
from likeness.training import checkpoints, parallel
from likeness.training.guided import MethodGuidance
from likeness.training.lessons import Lesson
from likeness.training.loop import finish, finished, train
from likeness.training.mentor import Mentor
from likeness.training.method_settings import MethodRecipe, MethodStageSettings
from likeness.training.method_stage import MethodStage
from likeness.training.pairs import read_base, read_data
from likeness.training.progress import Journal


def read_guidance(recipe: MethodRecipe, lesson: Lesson, settings: MethodStageSettings) -> MethodGuidance:
    """What guides a stage: the recipe's `teacher` over its `unguided`."""
    assert recipe.unguided is not None
    assert recipe.teacher is not None
    pipe = read_base(recipe.unguided)
    teacher = lesson.build(pipe.transformer.config, recipe.method)
    checkpoints.start_from(teacher, recipe.teacher)
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
    lesson: Lesson,
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
    if guided and (recipe.unguided is None or recipe.teacher is None):
        raise ConfigError(
            f"Stage `{guided[0]}` has attention_guidance. Name the base before it learned guidance as the recipe's "
            "`unguided`, and an adapter that was trained over that base as its `teacher`."
        )
    taught = [stage.name for stage in recipe.stages if stage.mentor_scale]
    if taught and recipe.mentor is None:
        raise ConfigError(
            f"Stage `{taught[0]}` has a mentor_scale. Name a Magic Mirror adapter over `base` as the recipe's `mentor`."
        )
    journal = Journal(folder, lesson.name)
    pipe, recognizer = read_base(recipe.base), Recognizer.load(recipe.recognizer).requires_grad_(False).eval()
    torch.manual_seed(recipe.seed)
    method = lesson.build(pipe.transformer.config, recipe.method)
    sets = {"faces": recipe.faces, "unseen": recipe.unseen, "clips": recipe.clips}
    data = read_data(sets, pipe, cache, journal)
    if recipe.start:
        checkpoints.start_from(method, recipe.start)
    lesson.prepare(method, data, is_new=recipe.start is None)
    lesson.begin(method, data, folder)
    method.attach(pipe)
    method.trainable_parameters()
    modules: dict[str, nn.Module] = {lesson.name: method}
    for number, settings in enumerate(recipe.stages):
        place = folder / settings.name
        if settings.name in recipe.without or finished(place, modules):
            continue
        stage = make_stage(pipe, method, lesson, recognizer, settings, data, recipe.seed + number)
        if settings.attention_guidance:
            stage.guidance = read_guidance(recipe, lesson, settings)
        if settings.mentor_scale:
            assert recipe.mentor is not None
            scale, dtype = settings.mentor_scale, stage.dtype
            stage.mentor = Mentor(recipe.base, recipe.mentor, data, settings.data, scale=scale, dtype=dtype)
        train(stage, settings, place, seed=recipe.seed + number)
        finish(place, modules)
    target = folder / "model"
    if parallel.rank() == 0:
        with files.write_atomically(target, replaces_folder=True) as draft:
            copy.deepcopy(method).half().save_pretrained(draft)
        journal.say(f"adapter written to {target}")
    return target
