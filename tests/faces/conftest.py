import os
from pathlib import Path

import pytest
from skimage.data import astronaut

from likeness import faces


@pytest.fixture(scope="session")
def photograph():
    """The one real photograph that tests may ship with: NASA's, in the public domain."""
    return astronaut()


@pytest.fixture(scope="session")
def face(photograph):
    return faces.read_face(photograph)


@pytest.fixture(scope="session")
def real_folder():
    folder = Path(os.environ.get("LIKENESS_REAL") or Path(__file__).parents[2] / ".." / "shared" / "real")
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder} (LIKENESS_REAL)")
    return folder
