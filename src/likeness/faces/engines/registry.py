"""Engines by name, for `--engine`, `read_face(..., engine=...)` and `LIKENESS_ENGINE`."""

import difflib
import os
from functools import cache

from likeness.errors import ConfigError
from likeness.faces.engines.base import FaceEngine
from likeness.faces.engines.dlib_engine import DlibEngine
from likeness.faces.engines.onnx_engine import ENGINE_SPECS, OnnxEngine

ENGINE_VARIABLE = "LIKENESS_ENGINE"
"""Environment variable with the name of the default engine."""
SHORT_NAMES = {"research": "research/buffalo_l", "open": "open/auraface"}
ENGINE_NAMES = (DlibEngine.name, *SHORT_NAMES, *ENGINE_SPECS)
"""All names, including short ones. `research` has the recognizer that PhotoMaker-V2 was trained with, `open` the
stronger of the open ones."""


def load_engine(name: str) -> FaceEngine:
    """The engine called `name`; cached, so that its models are loaded once.

    Raises:
        ConfigError: no engine has that name.
    """
    if name not in ENGINE_NAMES:
        close = difflib.get_close_matches(name, ENGINE_NAMES, n=1)
        advice = f"Did you mean `{close[0]}`?" if close else f"Use one of {', '.join(ENGINE_NAMES)}."
        raise ConfigError(f"No face engine is called `{name}`. {advice}")
    return _build(SHORT_NAMES.get(name, name))


def default_engine() -> FaceEngine:
    """The engine named by the environment variable `LIKENESS_ENGINE`, or dlib's."""
    return load_engine(os.environ.get(ENGINE_VARIABLE) or DlibEngine.name)


def resolve_engine(engine: FaceEngine | str | None) -> FaceEngine:
    """The engine itself, by its name, or the default one for None."""
    if engine is None:
        return default_engine()
    return load_engine(engine) if isinstance(engine, str) else engine


@cache
def _build(name: str) -> FaceEngine:
    return DlibEngine() if name == DlibEngine.name else OnnxEngine(name)
