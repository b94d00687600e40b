from pathlib import Path

import pytest

from likeness.generation import Likeness


@pytest.fixture(scope="session")
def likeness(checkpoint: Path) -> Likeness:
    return Likeness.load(backbone=checkpoint)


@pytest.fixture
def face(face_of):
    return face_of(0)
