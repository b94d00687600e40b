"""What counts as a face: turned, masked, small and compressed ones, and backgrounds that only look like one."""

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image
from what_is_a_face import mask

from likeness import faces, media
from likeness.errors import NoFaceError
from likeness.faces.engines.rotated_copies import rotate

CENTER = (224.0, 118.0)
"""Of the astronaut's face."""


def is_hers(face, center=CENTER):
    left, top, right, bottom = face.box
    return left < center[0] < right and top < center[1] < bottom


def turned(photograph, angle_deg, center=CENTER):
    height, width = photograph.shape[:2]
    matrix = cv2.getRotationMatrix2D(center, angle_deg, 1.0)
    return cv2.warpAffine(photograph, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def masked(photograph):
    """A painted surgical mask from the base of the nose to the chin."""
    picture = photograph.copy()
    cv2.ellipse(picture, (224, 150), (52, 42), 0, 0, 360, (180, 210, 230), -1)
    return picture


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
@pytest.mark.parametrize(("suffix", "quality"), [("webp", 80), ("jpg", 60)])
def test_a_badge_is_no_second_person_however_the_picture_is_stored(tmp_path, photograph, suffix, quality, orientation):
    laid = {
        1: photograph,
        5: photograph.swapaxes(0, 1),
        6: np.rot90(photograph, 1),
        7: photograph[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(photograph, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"astronaut.{suffix}"
    Image.fromarray(np.ascontiguousarray(laid)).save(path, quality=quality, exif=exif)
    assert is_hers(faces.read_face(path))


@pytest.mark.parametrize("angle_deg", [-45, -30, 30, 45])
def test_a_turned_head_is_found(photograph, face, angle_deg):
    found = faces.read_face(turned(photograph, angle_deg))
    assert is_hers(found)
    assert faces.compare(found, face).is_same


@pytest.mark.parametrize(
    "spoil",
    [
        lambda picture: np.rot90(picture),
        lambda picture: np.rot90(picture, -1),
        lambda picture: picture[::-1, ::-1],
        lambda picture: turned(picture, 60, (128.0, 118.0)),
    ],
    ids=["to the left", "to the right", "upside down", "60 degrees"],
)
def test_a_reference_is_searched_in_turned_copies(photograph, face, spoil):
    picture = np.ascontiguousarray(spoil(photograph[:256, 96:352]))  # Head and shoulders; the whole takes three times.
    found = faces.read_face(picture)
    assert found.score >= faces.DlibEngine.min_score
    assert faces.compare(found, face).distance < 0.25


def test_no_background_is_detected_in_turned_copies_of_a_whole_photograph(photograph, face):
    found = faces.read_face(turned(photograph, -75))
    assert is_hers(found)
    assert faces.compare(found, face).distance < 0.25


def painted_over(photograph):
    return cv2.rectangle(photograph.copy(), (150, 40), (300, 210), (200, 160, 140), -1)


@pytest.mark.parametrize("spoil", [masked, painted_over])
def test_background_is_not_detected_in_place_of_a_hidden_face(photograph, spoil):
    picture = spoil(photograph)
    assert not faces.find_faces(picture)
    with pytest.raises(NoFaceError, match="upright"):
        faces.read_face(picture)


@pytest.mark.real
def test_nearly_half_of_masked_faces_are_found_and_nothing_else(real_folder):
    found, missed = 0, 0
    for path in sorted(real_folder.glob("faces/*/*.png"))[::2]:
        photograph = media.read_image(path)
        plain = faces.read_face(photograph)
        try:
            face = faces.read_face(mask(photograph, plain.landmarks))
        except NoFaceError:
            missed += 1
            continue
        found += 1
        assert np.abs(face.landmarks[:4] - plain.landmarks[:4]).max() < 0.25 * (plain.box[2] - plain.box[0])
    assert found >= 0.4 * (found + missed)


def background(name):
    picture = getattr(skimage.data, name)()
    return picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1)


LARGER = ("coffee", "rocket", "brick")


@pytest.mark.parametrize("name", ["chelsea", "text", "coins", *LARGER])
def test_backgrounds_have_no_face(name):
    picture = background(name)
    assert not faces.find_faces(picture)
    assert not faces.find_faces(np.ascontiguousarray(picture[:, ::-1]))
    if name in LARGER:  # Their turned copies take a second each.
        picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert not faces.DlibEngine().detect_thoroughly(picture)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_turned_copies_of_larger_backgrounds_have_no_face(name):
    assert not faces.DlibEngine().detect_thoroughly(background(name))


@pytest.mark.parametrize("angle_deg", [-15, 15])
def test_a_badge_in_a_tilted_picture_is_no_second_person(photograph, angle_deg):
    """HOG gives it 0.40, and nothing in its upright crop."""
    copy, _ = rotate(photograph, angle_deg)
    assert len(faces.find_faces(copy)) == 1
    faces.read_face(copy)


def in_a_large_picture(photograph, width, height, head_px):
    """The astronaut among a brick wall; her head is 145 px high in the photograph."""
    wall = np.stack([np.tile(skimage.data.brick(), (8, 8))[:height, :width]] * 3, axis=-1)
    side = round(512 * head_px / 145)
    top, left = height // 3, width // 2
    wall[top : top + side, left : left + side] = media.resize(photograph, side, side)
    scale = side / 512
    return np.ascontiguousarray(wall), (left + CENTER[0] * scale, top + CENTER[1] * scale)


@pytest.mark.parametrize(
    ("width", "height", "head_px"),
    [
        (1800, 1350, 90),
        *(pytest.param(4000, 3000, head_px, marks=pytest.mark.slow) for head_px in (60, 80, 100, 150)),
    ],
)
def test_a_small_head_in_a_large_picture_is_found(photograph, width, height, head_px):
    picture, center = in_a_large_picture(photograph, width, height, head_px)
    assert is_hers(faces.read_face(picture), center)


@pytest.mark.real
def test_profiles_of_a_moving_head_are_found_or_nothing_is(real_folder):
    for path in sorted((real_folder / "videos").glob("d*.mp4")):
        frames, _ = media.sample_video(path, 6)
        found = [faces.find_faces(frame) for frame in frames]
        assert all(len(faces_of_one) <= 1 for faces_of_one in found)
        assert sum(map(len, found)) >= len(frames) // 2
