from pathlib import Path

import pytest

from likeness.generation import Likeness


@pytest.fixture(scope="session")
def likeness(checkpoint: Path) -> Likeness:
    return Likeness.load(backbone=checkpoint)


@pytest.fixture(scope="session", params=["magic_mirror", "fantasy_id"])
def either(checkpoint: Path, request: pytest.FixtureRequest) -> Likeness:
    """For what is claimed of every method."""
    return Likeness.load(backbone=checkpoint, method=request.param)


@pytest.fixture
def face(face_of):
    return face_of(0)
