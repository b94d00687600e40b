"""What is refused of `--shape` and the sliders before a model is loaded."""

import numpy as np
import pytest

from likeness.errors import ConfigError, WeightsError
from likeness.generation.sampling.shape_control import check_shape
from likeness.identity.face_shape import load_source
from likeness.identity.face_shape.mean_head import PITCH_DEG
from likeness.identity.face_shape.sliders import FaceShape

WIDE = FaceShape(jaw=1.0)


@pytest.mark.parametrize(
    ("shape", "sliders", "method", "complaint"),
    [
        ("learned", None, "magic_mirror", "magic_mirror reads no shape.*--method fantasy_id"),
        (None, WIDE, "magic_mirror", "A slider of the face's shape was set, but magic_mirror"),
        ("mean_head", WIDE, "fantasy_id", "another topology than sliders move"),
        ("mean_head:up", None, "fantasy_id", "names no pitch"),
        ("lerned", None, "fantasy_id", "Did you mean `learned`"),
        ("puppet:x", None, "fantasy_id", "names no puppet"),
        ("beside", None, "fantasy_id", "a character holds none"),
    ],
)
def test_sources_that_cannot_work_are_refused(shape, sliders, method, complaint):
    with pytest.raises(ConfigError, match=complaint):
        check_shape(shape, sliders, method=method)


@pytest.mark.parametrize(
    ("shape", "topology", "pitch_deg"),
    [
        ("learned", "puppet", None),
        ("mean_head", "flame", PITCH_DEG),
        ("mean_head:-10", "flame", -10.0),
        ("puppet:3", "puppet", None),
    ],
)
def test_sources_that_pass_can_be_loaded(shape, topology, pitch_deg):
    check_shape(shape, FaceShape(), method="fantasy_id")
    source = load_source(shape, template=np.zeros((0, 3)))
    assert source.topology == topology
    assert getattr(source, "pitch_deg", None) == pitch_deg


def test_sliders_need_no_source_and_are_refused_for_the_released_checkpoint():
    check_shape(None, WIDE, method="fantasy_id")
    check_shape(None, FaceShape(), method="fantasy_id", is_published_checkpoint=True)
    with pytest.raises(ConfigError, match="released FantasyID reads heads in FLAME's topology"):
        check_shape(None, WIDE, method="fantasy_id", is_published_checkpoint=True)


def test_neutral_sliders_are_allowed_for_a_method_without_shapes():
    check_shape(None, FaceShape(), method="magic_mirror")
    with pytest.raises(ConfigError, match="reads no shape"):
        check_shape("puppet:3", FaceShape(), method="magic_mirror")


def test_files_of_vertices_are_read(tmp_path):
    with pytest.raises(WeightsError, match=r"me\.ply does not exist"):
        check_shape(f"flame:{tmp_path / 'me.ply'}", method="fantasy_id")
    picture = tmp_path / "me.jpg"
    with pytest.raises(WeightsError, match=r"me\.ply or me\.obj or me\.npy is missing"):
        check_shape("beside", method="fantasy_id", faces=[picture])
    np.save(tmp_path / "me.npy", np.ones((5, 3)))
    with pytest.raises(ConfigError, match=r"\(5, 3\)"):
        check_shape("beside", method="fantasy_id", faces=[picture])
