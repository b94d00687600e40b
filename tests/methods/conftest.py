import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "identity"))

from miniature import make_mirror, make_pipe, make_transformer, make_vae


@pytest.fixture(scope="session")
def vae():
    """For pipelines whose videos stay latents."""
    return make_vae()


@pytest.fixture
def pipe(vae):
    return make_pipe(vae)


@pytest.fixture
def transformer():
    return make_transformer()


@pytest.fixture
def mirror(pipe):
    return make_mirror(pipe.transformer).attach(pipe)
