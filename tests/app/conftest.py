"""A study of two systems, three people and one sentence each, made of noise."""

import numpy as np
import pytest
from survey import PEOPLE, SYSTEMS, make_study

from likeness.app.study.answers import AnswerStore
from likeness.app.study.manifest import Study
from likeness.media import write_image, write_video


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """Folders as a user has them: videos by system, pictures of references."""
    root = tmp_path_factory.mktemp("material")
    random = np.random.default_rng(0)
    for number, person in enumerate(PEOPLE):
        write_image(root / "references" / f"{person}.jpg", random.integers(0, 256, (40, 40, 3), np.uint8))
        for system in SYSTEMS:
            frames = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
            record = {"prompt": f"a person img number {number} waves", "settings": {"method": system}}
            write_video(root / system / f"{person}_1.mp4", frames, 8.0, metadata=record)
    return root


@pytest.fixture(scope="session")
def shared_study(material, tmp_path_factory):
    """A study that tests only read."""
    folder = tmp_path_factory.mktemp("study")
    make_study(material, folder)
    return folder


@pytest.fixture
def study(shared_study):
    return Study.load(shared_study)


@pytest.fixture
def store(study, tmp_path):
    opened = AnswerStore(tmp_path, study)
    yield opened
    opened.close()
