import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "methods")]

import miniature  # noqa: E402
from composing.subject import Subject  # noqa: E402


@pytest.fixture
def subject() -> Subject:
    """A pipeline of a few thousand random weights."""
    return Subject(
        pipe=miniature.make_pipe,
        method=lambda pipe: miniature.make_mirror(pipe.transformer),
        prompt=miniature.PROMPT,
        options={"height": 32, "width": 32, "num_frames": 9},
    )


@pytest.fixture
def even_subject(subject) -> Subject:
    """One whose face tokens two processes can share."""
    return replace(subject, method=lambda pipe: miniature.make_mirror(pipe.transformer, face_tokens=4))
