import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from onnx_models import block_means, save_landmark_model, save_recognizer, save_scrfd, save_yunet

from likeness import faces, media, weights
from likeness.cli import main
from likeness.errors import ConfigError, FaceError, NoFaceError, ResourceError, WeightsError
from likeness.faces.engines import onnx_engine
from likeness.faces.engines import registry as choose
from likeness.faces.engines.onnx_engine import CHIP_POINTS, OnnxEngine
from likeness.faces.geometry import align
from likeness.weights.local_files import extract_archive

NAMES = tuple(onnx_engine.ENGINE_SPECS)
AT = CHIP_POINTS + np.array([60, 40])
"""Landmarks with which a chip is the part of the picture from (60, 40) on."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Where the weights of every engine lie, under their real names."""
    root = tmp_path_factory.mktemp("weights")
    for parts in onnx_engine.ENGINE_SPECS.values():
        for folder, _ in (parts.detector_file, parts.recognizer_file):
            (root / folder).mkdir(exist_ok=True)
        detector = root / "/".join(parts.detector_file)
        (save_yunet if detector.parent.name == "yunet" else save_scrfd)(detector)
        name = "data" if parts.embedding_width == 128 else "input.1"
        save_recognizer(root / "/".join(parts.recognizer_file), width=parts.embedding_width, name=name)
    return root


@pytest.fixture
def engine_of(store, monkeypatch):
    def locate(name):
        files = list((store / name).iterdir())
        return files[0] if len(files) == 1 else store / name

    monkeypatch.setattr(onnx_engine, "locate", locate)
    return OnnxEngine


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


def expected_embedding(name, chip):
    count = 16 if onnx_engine.ENGINE_SPECS[name].embedding_width == 512 else 8
    means = block_means(chip, count)
    return means if name == "open/sface" else (means - 127.5) / 127.5


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_embeds_its_chip_in_rgb_with_its_normalization(engine_of, noise, name):
    engine = engine_of(name)
    embedding = engine.embed(noise, AT)
    assert isinstance(engine, faces.FaceEngine)
    assert embedding.dtype == np.float32
    assert embedding == pytest.approx(expected_embedding(name, noise[40:152, 60:172]), abs=2e-3)


def test_a_turned_and_larger_face_gives_the_same_chip(engine_of, noise):
    engine = engine_of("research/buffalo_l")
    # A quarter to the left: (x, y) goes to (y, width - 1 - x).
    turned = np.ascontiguousarray(np.rot90(noise))
    points = AT
    points = np.stack([points[:, 1], noise.shape[1] - 1 - points[:, 0]], axis=1)
    assert engine.embed(turned, points) == pytest.approx(engine.embed(noise, AT), abs=5e-3)
    doubled = noise.repeat(2, axis=0).repeat(2, axis=1)
    points = 2 * AT + 0.5
    assert engine.embed(doubled, points) == pytest.approx(engine.embed(noise, AT), abs=5e-3)


@pytest.mark.filterwarnings("ignore:.estimate. is deprecated:FutureWarning")  # Of scikit-image, in insightface.
def test_the_chip_matches_insightface(noise):
    face_align = pytest.importorskip("insightface.utils.face_align")
    angle = np.deg2rad(17)
    turn = 1.3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ((CHIP_POINTS - 56) @ turn.T + (200, 150)).astype(np.float32)
    smooth = faces.warp(noise, np.array([[6.0, 0, 0], [0, 6.0, 0]]), 400)
    expected = face_align.norm_crop(smooth, points)
    ours = faces.warp(smooth, faces.fit_similarity(points, CHIP_POINTS), 112, fill=0)
    assert np.abs(expected.astype(int) - ours).max() <= 3


def test_sface_matches_opencv(engine_of, store, noise):
    cv2 = pytest.importorskip("cv2")
    reference = cv2.FaceRecognizerSF.create(str(store / "sface/face_recognition_sface_2021dec.onnx"), "")
    row = np.concatenate([[0, 0, 1, 1], AT.ravel(), [1]]).astype(np.float32)
    chip = reference.alignCrop(np.ascontiguousarray(noise[..., ::-1]), row)
    ours = engine_of("open/sface").embed(noise, AT)
    assert ours == pytest.approx(reference.feature(chip)[0], abs=0.5)


@pytest.fixture
def portrait():
    """A red and blue square where the test detectors see a face, on noise too dim for them."""
    picture = np.random.default_rng(1).integers(0, 40, (640, 640, 3), dtype=np.uint8)
    picture[256:288, 320:352] = (255, 0, 0)
    return picture


def test_a_picture_becomes_a_face_with_an_engine_named(engine_of, portrait, monkeypatch):
    monkeypatch.setattr(choose, "OnnxEngine", engine_of)
    choose._build.cache_clear()
    face = faces.read_face(portrait, engine="open")
    choose._build.cache_clear()
    assert (face.engine, face.layout, face.metric) == ("open/auraface", "eye centers", "cosine")
    assert face.embedding.shape == (512,)
    # The cell of 32 pixels at column 10 and row 8, and the model's own box.
    assert face.box[0] == pytest.approx(10.5 * 32 - np.e * 16, abs=1e-2)
    assert abs(face.pose.roll_deg) < 1
    assert abs(face.pose.yaw_deg) < 1
    to_crop = faces.fit_similarity(face.landmarks, faces.EYE_CENTERS.template * 224)
    eyes = align.apply_affine(to_crop, face.landmarks)[:2]
    assert np.abs(eyes[:, 1] - 0.4547 * 224).max() < 12


def test_a_picture_smaller_or_larger_than_the_detector_is_measured_in_its_own_pixels(engine_of):
    engine = engine_of("research/antelopev2")
    picture = np.zeros((640, 640, 3), np.uint8)
    picture[192:288, 288:384] = (0, 0, 235)  # Three by three cells at stride 32, the middle one the surest.
    picture[224:256, 320:352] = (0, 0, 255)
    own = faces.read_face(picture, engine=engine)
    assert own.landmarks[:2].mean(0) == pytest.approx((320, 224 - 32))
    for side in (320, 1280):
        found = faces.read_face(media.resize(picture, side, side), engine=engine)
        assert (found.landmarks + 0.5) / (side / 640) - 0.5 == pytest.approx(own.landmarks, abs=0.6)


def test_no_face_is_reported_with_the_best_guess(engine_of):
    picture = np.zeros((640, 640, 3), np.uint8)
    picture[256:288, 320:352] = (0, 0, 160)
    with pytest.raises(NoFaceError, match=r"0\.\d\d, at least 0\.50"):
        faces.read_face(picture, engine=engine_of("research/buffalo_l"))


@pytest.mark.parametrize(
    ("name", "cosine"),
    [
        ("research/buffalo_l", 0.4),
        ("research/antelopev2", 0.4),
        ("open/auraface", 0.4),
        ("open/sface", 0.363),
    ],
)
def test_the_published_cosine_decides(engine_of, portrait, name, cosine):
    engine = engine_of(name)
    color = (255, 0, 0) if name.startswith("open") else (0, 0, 255)
    portrait[256:288, 320:352] = color
    face = faces.read_face(portrait, engine=engine)
    axis, other = np.eye(2, engine.embedding_width, dtype=np.float32)
    assert faces.compare(face, face).min_cosine == pytest.approx(cosine)
    for more, is_same in ((0.01, True), (-0.01, False)):
        at = cosine + more
        # Lengths do not matter where cosines decide.
        a = replace(face, embedding=3 * axis)
        b = replace(face, embedding=20 * (at * axis + np.sqrt(1 - at**2) * other))
        result = faces.compare(a, b)
        assert result.is_same == is_same
        assert result.cosine == pytest.approx(at, abs=1e-6)
        assert result.distance == pytest.approx(np.sqrt(2 - 2 * at), abs=1e-6)


PACKS = {
    # Name: detector, recognizer and its output. The zip of antelopev2 has a folder inside, that of buffalo_l has none.
    "buffalo_l": ("det_10g.onnx", "w600k_r50.onnx", "683", ""),
    "antelopev2": ("scrfd_10g_bnkps.onnx", "glintr100.onnx", "1333", "antelopev2/"),
}


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_of_insightface_as_published_is_pulled_and_read(pack, portrait, monkeypatch, tmp_path):
    """Five files with the published names, inputs and outputs, in their zip."""
    detector, recognizer, output, inner = PACKS[pack]
    files = tmp_path / "files"
    files.mkdir()
    save_scrfd(files / detector, side=None)
    save_recognizer(files / recognizer, width=512, output=output)
    save_landmark_model(files / "1k3d68.onnx", side=192, width=3309)
    save_landmark_model(files / "2d106det.onnx", side=192, width=212)
    save_landmark_model(files / "genderage.onnx", side=96, width=3)
    with zipfile.ZipFile(tmp_path / f"{pack}.zip", "w") as archive:
        for path in sorted(files.iterdir()):
            archive.write(path, inner + path.name)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    unpacked = weights.entry(pack)
    unpacked.folder.mkdir(parents=True)
    plain = [replace(file, sha256=None, size_bytes=None) for file in unpacked.files]
    assert {file.path.name for file in plain} == {path.name for path in files.iterdir()}
    extract_archive(replace(unpacked, files=tuple(plain)), tmp_path / f"{pack}.zip", lambda *_: None)
    assert all(file.path.is_file() for file in plain)
    monkeypatch.setattr(onnx_engine, "locate", lambda name: weights.entry(name).folder)
    portrait[256:288, 320:352] = (0, 0, 255)
    face = faces.read_face(portrait, engine=OnnxEngine(f"research/{pack}"))
    assert face.embedding.shape == (512,)
    assert face.landmarks.mean(axis=0) == pytest.approx((320, 256 + 32 * 0.1), abs=1)


def test_sfaces_threshold_is_opencvs_in_both_forms():
    assert OnnxEngine("open/sface").threshold == pytest.approx(1.128, abs=1e-3)


def test_embeddings_of_two_engines_do_not_compare(engine_of, portrait):
    a = faces.read_face(portrait, engine=engine_of("open/auraface"))
    b = faces.read_face(portrait, engine=engine_of("open/sface"))
    with pytest.raises(FaceError, match=r"`open/auraface`, the other by `open/sface`"):
        faces.compare(a, b)


def test_landmarks_of_another_engine_are_refused(engine_of, photograph, face):
    with pytest.raises(FaceError, match="landmarks are eye corners, this engine needs eye centers"):
        engine_of("open/sface").embed(photograph, face.landmarks)
    with pytest.raises(FaceError, match="landmarks are eye centers, this engine needs eye corners"):
        faces.default_engine().embed(photograph, CHIP_POINTS)
    with pytest.raises(FaceError, match=r"shape \(4, 2\)"):
        faces.default_engine().embed(photograph, CHIP_POINTS[:4])


def test_a_detection_of_another_layout_is_refused(photograph):
    class Mixed(faces.DlibEngine):
        def detect(self, picture):
            return [replace(found, layout="eye centers") for found in super().detect(picture)]

    with pytest.raises(FaceError, match="they do not mix"):
        faces.read_face(photograph, engine=Mixed())


@pytest.mark.parametrize(
    ("name", "pulls"),
    [
        ("research", ["buffalo_l"]),
        ("research/antelopev2", ["antelopev2"]),
        ("open", ["yunet", "auraface"]),
        ("open/sface", ["yunet", "sface"]),
    ],
)
def test_missing_models_name_the_commands_that_fetch_them(photograph, monkeypatch, tmp_path, name, pulls):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    choose._build.cache_clear()
    with pytest.raises(WeightsError) as caught:
        faces.read_face(photograph, engine=name)
    for pull in pulls:
        assert f"likeness models pull {pull}" in str(caught.value)


def test_a_missing_onnxruntime_names_the_extra(engine_of, noise, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ResourceError, match=r"pip install likeness\[open\]"):
        engine_of("open/sface").detect(noise)


def test_a_recognizer_of_another_width_is_refused(engine_of, noise, tmp_path, monkeypatch):
    wrong = save_recognizer(tmp_path / "wrong.onnx", width=128)
    engine = engine_of("open/auraface")
    monkeypatch.setattr(engine, "_files", (wrong, wrong))
    with pytest.raises(WeightsError, match="gives 128 numbers for a face; `open/auraface` needs 512"):
        engine.embed(noise, CHIP_POINTS)


def test_an_unknown_engine_is_refused_with_a_suggestion(photograph):
    with pytest.raises(ConfigError, match="Did you mean `research`"):
        faces.read_face(photograph, engine="reserch")
    with pytest.raises(ConfigError, match="Use one of dlib, research, open"):
        faces.load_engine("xyz")


def test_the_environment_names_the_default_engine(monkeypatch):
    assert faces.default_engine().name == "dlib"
    monkeypatch.setenv("LIKENESS_ENGINE", "open/sface")
    assert faces.default_engine().name == "open/sface"
    assert faces.load_engine("open/sface") is faces.default_engine()


def test_compare_takes_an_engine_by_name(engine_of, portrait, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(choose, "OnnxEngine", engine_of)
    choose._build.cache_clear()
    media.write_image(tmp_path / "a.png", portrait)
    picture = str(tmp_path / "a.png")
    assert main(["compare", picture, picture, "--engine", "open/sface"]) == 0
    assert capsys.readouterr().out == "same person: cosine 1.000 > 0.363\n"
    assert main(["compare", picture, picture, "--engine", "opne"]) == 2
    assert "Did you mean `open`" in capsys.readouterr().err
    choose._build.cache_clear()
