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
