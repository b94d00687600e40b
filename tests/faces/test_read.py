from dataclasses import replace

import numpy as np
import pytest

from likeness import faces, media
from likeness.errors import FaceError, ManyFacesError, MediaError, NoFaceError, SmallFaceError
from likeness.records import Detection, Face


@pytest.fixture(scope="module")
def pair(photograph):
    """The astronaut beside her mirror image."""
    return np.concatenate([photograph, photograph[:, ::-1]], axis=1)


def test_a_photograph_becomes_a_face(face):
    assert isinstance(face, Face)
    left, top, right, bottom = face.box
    assert left < 220 < right
    assert top < 120 < bottom
    assert face.crop.shape == (224, 224, 3)
    assert face.embedding.shape == (128,)
    assert max(abs(face.pose.yaw_deg), abs(face.pose.pitch_deg), abs(face.pose.roll_deg)) < 15
    assert face.engine == "dlib"


def test_false_boxes_are_dropped(photograph):
    assert len(faces.default_engine().detect(photograph)) > 1, "HOG sees faces in the background here"
    assert len(faces.find_faces(photograph)) == 1


def test_two_faces_are_listed_from_the_left(pair):
    first, second = faces.find_faces(pair)
    assert first.box[0] < 512 < second.box[0]


def test_many_faces_name_their_boxes_and_the_way_out(pair):
    with pytest.raises(ManyFacesError, match=r"(?s)2 faces.*1: left 17.*2: left 7.*--pick N") as caught:
        faces.read_face(pair)
    assert len(caught.value.boxes) == 2


def test_pick_counts_from_the_left(pair):
    assert faces.read_face(pair, pick=2).box[0] > 512
    with pytest.raises(FaceError, match="shows 2 faces"):
        faces.read_face(pair, pick=3)


def test_a_too_small_face_is_distinguished_from_none(photograph):
    with pytest.raises(SmallFaceError, match="at least 32 px"):
        faces.read_face(media.resize(photograph, 150, 150))
    with pytest.raises(NoFaceError, match="looks towards the camera"):
        faces.read_face(photograph[300:, 300:])


def test_an_array_that_is_no_picture_is_refused(photograph):
    for wrong in (photograph / 255, photograph[..., 0], photograph[:0]):
        with pytest.raises(MediaError, match="uint8"):
            faces.read_face(wrong)


def test_small_frames_are_enlarged_and_measured_in_their_own_pixels(photograph, face):
    small = media.resize(photograph[:256, 96:352], 64, 64)
    assert not faces.find_faces(small)
    (found,) = faces.find_faces(small, enlarge_to_px=384)
    expected = (face.landmarks - (96, 0) + 0.5) / 4 - 0.5
    assert np.abs(found.landmarks - expected).max() < 1.5
    assert faces.compare(found, face).is_same


def test_a_large_picture_is_measured_in_its_own_pixels(photograph, face):
    (found,) = faces.find_faces(media.resize(photograph, 2048, 2048))
    assert np.abs((found.landmarks + 0.5) / 4 - 0.5 - face.landmarks).max() < 3
    assert faces.compare(found, face).distance < 0.2


def test_the_same_person_is_the_same_and_mirrored_still_is(photograph, face):
    mirrored = faces.compare(face, faces.read_face(np.ascontiguousarray(photograph[:, ::-1])))
    assert mirrored.is_same
    assert mirrored.cosine > 0.96
    itself = faces.compare(face, face)
    assert (itself.distance, itself.cosine) == (0, pytest.approx(1))


def test_engines_do_not_mix(face):
    with pytest.raises(FaceError, match="do not compare"):
        faces.compare(face, replace(face, engine="other"))


def test_another_engine_can_join(photograph):
    class Oracle:
        """Knows one face and where it is."""

        name, embedding_width, threshold, min_score = "oracle", 2, 0.1, 0.5
        metric, layout, detection_passes = "distance", faces.EYE_CORNERS, (faces.DetectionPass(1024, max_scale=1.0),)

        def detect(self, picture):
            side = picture.shape[0]
            landmarks = faces.HEAD_TEMPLATE * side
            return [Detection(box=(0.0, 0.0, side, side), landmarks=landmarks, score=0.9)]

        def embed(self, picture, landmarks):  # noqa: ARG002
            return np.array([1.0, 0.0], np.float32)

    assert isinstance(Oracle(), faces.FaceEngine)
    face = faces.read_face(photograph, engine=Oracle())
    assert (face.engine, faces.compare(face, face).threshold) == ("oracle", 0.1)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (640, 427), (301, 512), (150, 200)])
def test_the_whole_image_is_what_clips_preprocessing_makes(photograph, width, height):
    pil = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    picture = media.resize(photograph, width, height)
    process = pil.CLIPImageProcessorPil(do_rescale=False, do_normalize=False)
    expected = np.asarray(process(picture).pixel_values[0]).transpose(1, 2, 0)
    assert np.array_equal(media.resize_and_center_crop(picture, 224), expected)


def test_a_reference_carries_the_whole_image_and_a_frame_does_not(photograph):
    face = faces.read_face(photograph)
    assert face.whole_image is not None
    assert np.array_equal(face.whole_image, media.resize(photograph, 224, 224))
    assert all(found.whole_image is None for found in faces.find_faces(photograph))
