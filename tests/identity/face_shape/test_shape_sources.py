"""Sources of shapes: what each gives, and what it says where it cannot."""

import dataclasses
import pickle
import sys
import types

import numpy as np
import pytest

from likeness import weights
from likeness.errors import ConfigError, NoFaceError, ResourceError, WeightsError
from likeness.faces.geometry import mesh_points
from likeness.faces.geometry.align import rotation_matrix
from likeness.identity.face_shape import flame_check, load_source
from likeness.identity.face_shape.beside import BesideShape, find_vertices
from likeness.identity.face_shape.flame import FlameShape
from likeness.identity.face_shape.learned import LearnedShape
from likeness.identity.face_shape.mean_head import CENTER_M, JOINT_M, PITCH_DEG, MeanHeadShape
from likeness.identity.face_shape.mediapipe import ANCHORS, MediaPipeShape, fit_similarity_3d, remove_pose
from likeness.identity.face_shape.network import ShapeNetwork, principal_shapes
from likeness.identity.face_shape.puppet import PuppetShape
from likeness.identity.mesh.published_mesh import read_template
from likeness.puppets import sample_person
from likeness.puppets.people.shape import build_head
from likeness.records import Pose


def small_network() -> ShapeNetwork:
    import torch

    torch.manual_seed(0)
    network = ShapeNetwork(num_vertices=7, num_components=3, widths=(4, 8, 8), hidden_width=8, size_px=16)
    heads = np.random.default_rng(0).normal(size=(20, 7, 3))
    mean, basis = principal_shapes(heads, 3)
    network.set_basis(torch.from_numpy(mean), torch.from_numpy(basis))
    return network


def test_a_puppet_is_known_exactly():
    source = load_source("puppet:5")
    assert np.array_equal(source([]), build_head(sample_person(5)).vertices)
    assert source([]).shape == (source.num_vertices, 3)
    assert source.topology == "puppet"


def test_components_are_orthogonal_and_scaled_by_their_deviations():
    heads = np.random.default_rng(1).normal(size=(30, 5, 3)) * (3, 1, 1)
    mean, basis = principal_shapes(heads, 4)
    flat = basis.reshape(4, -1).astype(np.float64)
    products = flat @ flat.T
    assert np.allclose(products, np.diag(np.diag(products)), atol=1e-5)
    coefficients = (heads - mean).reshape(30, -1) @ flat.T / np.diag(products)
    assert np.allclose(coefficients.std(axis=0), 1, atol=1e-5)


def test_coefficients_and_heads_are_a_round_trip():
    import torch

    network = small_network()
    wanted = torch.randn(4, 3)
    assert torch.allclose(network.coefficients(network.head(wanted)), wanted, atol=1e-4)


def test_views_are_averaged():
    import torch

    network = small_network()
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pixels = torch.from_numpy(crops).movedim(-1, 1).float() / 127.5 - 1
    with torch.no_grad():
        each = network.head(network(network.prepare(pixels))).numpy()
    assert np.allclose(network.read(crops), each.mean(axis=0), atol=1e-5)
    assert np.allclose(network.read(crops[:1]), each[0], atol=1e-5)


def test_a_saved_network_reads_the_same_and_a_damaged_one_is_reported(tmp_path):
    network = small_network()
    network.save(tmp_path)
    crops = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert np.allclose(ShapeNetwork.load(tmp_path).read(crops), network.read(crops), atol=5e-3)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="likeness train"):
        ShapeNetwork.load(tmp_path)
    with pytest.raises(WeightsError, match="likeness train"):
        LearnedShape(tmp_path / "absent")


def test_what_ships_fits_the_puppets_and_two_megabytes(face_of):
    source = load_source("learned")
    read = source([face_of(0), face_of(1)])
    assert read.shape == (source.num_vertices, 3) == build_head(sample_person(0)).vertices.shape
    assert np.isfinite(read).all()
    folder = weights.CHECKPOINTS / "tiny" / "shape"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6


def test_unknown_sources_are_reported():
    with pytest.raises(ConfigError, match="Did you mean `learned`"):
        load_source("lerned")
    with pytest.raises(ConfigError, match="puppet:7"):
        load_source("puppet:seven")
    with pytest.raises(ConfigError, match="at least one"):
        load_source("learned")([])


# MediaPipe


@pytest.fixture
def mediapipe(monkeypatch):
    """A fake MediaPipe with fixed results."""

    class Mesh:
        seen: list[np.ndarray] = []  # noqa: RUF012

        def __init__(self, **options):
            assert options["static_image_mode"]

        def process(self, picture):
            assert picture.dtype == np.uint8
            if not self.seen:
                return types.SimpleNamespace(multi_face_landmarks=None)
            points = [types.SimpleNamespace(x=x, y=y, z=z) for x, y, z in self.seen.pop(0)]
            return types.SimpleNamespace(multi_face_landmarks=[types.SimpleNamespace(landmark=points)])

    edges = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 1)]
    module = types.SimpleNamespace(
        __version__="0.10.21",
        solutions=types.SimpleNamespace(
            face_mesh=types.SimpleNamespace(FaceMesh=Mesh),
            face_mesh_connections=types.SimpleNamespace(FACEMESH_TESSELATION=frozenset(edges)),
        ),
    )
    monkeypatch.setitem(sys.modules, "mediapipe", module)
    mesh_points._face_mesh.cache_clear()
    yield Mesh
    mesh_points._face_mesh.cache_clear()


def random_turn(random: np.random.Generator) -> np.ndarray:
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return turn * np.sign(np.linalg.det(turn))


def test_a_similarity_in_space_is_found_again():
    random = np.random.default_rng(0)
    points, turn, shift = random.normal(size=(7, 3)), random_turn(random), random.normal(size=3)
    scale, found, moved = fit_similarity_3d(points, 1.7 * points @ turn.T + shift)
    assert scale == pytest.approx(1.7)
    assert np.allclose(found, turn)
    assert np.allclose(moved, shift)
    mirrored = fit_similarity_3d(points, points * (-1, 1, 1))[1]
    assert np.linalg.det(mirrored) == pytest.approx(1)


def test_pose_size_and_place_are_removed():
    random = np.random.default_rng(1)
    points = random.normal(size=(468, 3))
    moved = 40 * points @ random_turn(random).T + 100
    assert np.allclose(remove_pose(moved), remove_pose(points), atol=1e-9)


def test_views_of_mediapipe_are_averaged_without_their_irises(mediapipe, face_of):
    random = np.random.default_rng(2)
    seen = [random.uniform(size=(478, 3)) for _ in range(2)]
    mediapipe.seen = [points.copy() for points in seen]
    source = MediaPipeShape()
    read = source([face_of(0), face_of(1)])
    expected = [remove_pose(points[:468] * (224, -224, -224)) for points in seen]
    assert np.allclose(read, np.mean(expected, axis=0), atol=1e-4)
    assert max(ANCHORS) < source.num_vertices
    with pytest.raises(NoFaceError, match="face0"):
        source([face_of(0)])


@pytest.mark.usefixtures("mediapipe")
def test_triangles_face_the_camera_and_surround_no_other():
    corners = np.array([[0, 0, 0], [4, 0, 0], [2, 3, 0], [2, 1, 0.5], [6, 3, 0], [0, 3, 0], [2, -2, 0]])
    # 3 lies inside 0-1-2, so that 0-1-2 is no triangle of the mesh.
    mesh_points._solutions().face_mesh_connections.FACEMESH_TESSELATION = frozenset(
        [
            (0, 1),
            (1, 2),
            (2, 0),
            (3, 0),
            (1, 3),
            (3, 2),
            (2, 4),
            (4, 1),
            (1, 4),
            (5, 0),
            (5, 2),
            (6, 0),
            (6, 1),
        ]
    )
    for points in (corners, corners * (-1, 1, 1)):
        found = mesh_points.read_triangles(points)
        expected = {(0, 1, 3), (1, 2, 3), (0, 2, 3), (1, 2, 4), (0, 2, 5), (0, 1, 6)}
        assert {tuple(sorted(triangle)) for triangle in found.tolist()} == expected
        first, second, third = (points[found[:, corner]] for corner in range(3))
        assert (np.cross(second - first, third - first)[:, 2] > 0).all()


def test_without_mediapipe_the_error_says_how_to_install_it(monkeypatch, face_of):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    mesh_points._face_mesh.cache_clear()
    with pytest.raises(ResourceError, match=r"pip install --no-deps mediapipe==0\.10\.21"):
        load_source("mediapipe")([face_of(0)])
    monkeypatch.setitem(sys.modules, "mediapipe", types.SimpleNamespace(__version__="1.2.2"))
    with pytest.raises(ResourceError, match=r"1\.2\.2 brings no models"):
        load_source("mediapipe")([face_of(0)])


# FLAME


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "models" / "flame").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def vertices():
    """Random points that are no head, but stand, look and measure like one of FLAME's."""
    random = np.random.default_rng(3)
    points = random.normal(size=(flame_check.NUM_VERTICES, 3)) * 0.047
    points[:, 2] = np.clip(points[:, 2], -0.14, 0.1)
    marks = {"NOSE": (0, 0, 0.11), "BACK": (0, 0.05, -0.15), "CROWN": (0, 0.13, 0), "NECK": (0, -0.18, 0)}
    for name, place in {**marks, "RIGHT": (0.1, -0.1, -0.05), "LEFT": (-0.1, -0.1, -0.05)}.items():
        points[getattr(flame_check, name)] = place
    return points.astype(np.float32)


def write_ply(path, vertices, layout):
    head = f"ply\nformat {layout} 1.0\nelement vertex {len(vertices)}\nproperty uchar mark\n"
    head += "".join(f"property float {axis}\n" for axis in "zyx") + "end_header\n"
    if layout == "ascii":
        body = "\n".join(f"7 {z} {y} {x}" for x, y, z in vertices).encode()
    else:
        order = "<" if "little" in layout else ">"
        rows = np.zeros(len(vertices), [("mark", "u1"), *((axis, order + "f4") for axis in "zyx")])
        for number, axis in enumerate("xyz"):
            rows[axis] = vertices[:, number]
        body = rows.tobytes()
    path.write_bytes(head.encode() + body)


@pytest.mark.parametrize("layout", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_meshes_are_taken_as_they_are(vertices, tmp_path, layout):
    write_ply(tmp_path / "me.ply", vertices, layout)
    source = load_source(f"flame:{tmp_path / 'me.ply'}")
    assert np.allclose(source([]), vertices, atol=1e-6)
    assert source.topology == "flame"


def test_obj_and_numpy_are_read_too(vertices, tmp_path):
    lines = [f"v {x} {y} {z}" for x, y, z in vertices] + ["vn 0 0 1", "f 1 2 3"]
    (tmp_path / "me.obj").write_text("\n".join(lines))
    np.save(tmp_path / "me.npy", vertices)
    assert np.allclose(FlameShape(tmp_path / "me.obj")([]), vertices, atol=1e-6)
    assert np.array_equal(FlameShape(tmp_path / "me.npy")([]), vertices)


class Ch:
    """As chumpy's arrays are pickled: an object with its numbers in `x`."""

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize("name", ["flame.npz", "generic_model.pkl"])
def test_shape_numbers_give_the_neutral_head(home, tmp_path, vertices, name, monkeypatch):
    directions = 0.002 * np.random.default_rng(4).normal(size=(5023, 3, 4))
    betas = np.array([0.5, -1.0, 2.0])
    path = home / "models" / "flame" / name
    if name.endswith("npz"):
        np.savez(path, v_template=vertices, shapedirs=directions)
    else:
        chumpy = types.ModuleType("chumpy")
        chumpy.Ch = Ch
        monkeypatch.setitem(sys.modules, "chumpy", chumpy)
        monkeypatch.setattr(Ch, "__module__", "chumpy")
        path.write_bytes(pickle.dumps({"v_template": vertices, "shapedirs": Ch(directions)}, protocol=2))
    np.save(tmp_path / "me.npy", betas)
    expected = vertices + np.einsum("vck,k->vc", directions[..., :3], betas)
    assert np.allclose(FlameShape(tmp_path / "me.npy")([]), expected, atol=1e-5)


def test_a_pickle_that_runs_code_is_refused(home, tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("opened",)

    (home / "models" / "flame" / "generic_model.pkl").write_bytes(pickle.dumps({"v_template": Trap()}))
    np.save(tmp_path / "me.npy", np.zeros(10))
    with pytest.raises(WeightsError, match=r"asks for builtins\.print"):
        FlameShape(tmp_path / "me.npy")


@pytest.mark.usefixtures("home")
def test_what_is_missing_of_flame_is_reported(tmp_path, vertices):
    with pytest.raises(WeightsError, match=r"No file was named.*5,023 vertices.*flame\.is\.tue\.mpg\.de"):
        load_source("flame")
    np.save(tmp_path / "me.npy", np.zeros(10))
    with pytest.raises(WeightsError, match=r"flame\.npz is not here"):
        FlameShape(tmp_path / "me.npy")
    np.save(tmp_path / "short.npy", vertices[:100])
    with pytest.raises(ConfigError, match=r"\(100, 3\)"):
        FlameShape(tmp_path / "short.npy")
    (tmp_path / "me.ply").write_text("no mesh")
    with pytest.raises(ConfigError, match="no PLY header"):
        FlameShape(tmp_path / "me.ply")


def test_exact_shapes_take_a_person_too():
    person = dataclasses.replace(sample_person(3))
    assert np.array_equal(PuppetShape(person)([]), PuppetShape(3)([]))


FLIP_ALL, TURN_AWAY, TURN_OVER = np.diag([1, 1, -1]), np.diag([-1, 1, -1]), np.diag([1, -1, -1])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda head: 1000 * head, r"look like millimeters: divide by 1000"),
        (lambda head: 100 * head, r"look like centimeters: divide by 100"),
        (lambda head: 7 * head, r"Export them in meters"),
        (lambda head: head @ FLIP_ALL, "is mirrored: one of its axes is flipped"),
        (lambda head: head @ TURN_AWAY, "looks away from the camera and has its right and left exchanged"),
        (lambda head: head @ TURN_OVER, "looks away from the camera and stands upside down"),
        (
            lambda head: head + np.array([0, 0, 0.6]),
            r"Depth in .* goes from 0\.\d+ to 0\.\d+ m.*`verts`, not `trans_verts`",
        ),
    ],
)
def test_a_head_in_another_unit_or_direction_is_refused(vertices, tmp_path, change, complaint):
    path = tmp_path / "me.npy"
    np.save(path, vertices)
    FlameShape(path)
    np.save(path, change(vertices))
    with pytest.raises(ConfigError, match=complaint):
        FlameShape(path)


def posed(vertices, pose):
    flip = np.diag([1, -1, 1])  # FLAME's y points up.
    return vertices @ (flip @ rotation_matrix(*pose) @ flip).T


@pytest.mark.parametrize(
    ("pose", "refused", "complaint"),
    [
        ((0, -21, 0), (0, -130, 0), "looks away from the camera and stands upside down"),
        ((45, -30, 20), (120, -30, 20), "looks away from the camera"),
        ((-45, 25, -20), (-45, 25, -130), "stands upside down"),
    ],
)
def test_a_posed_head_passes_until_it_looks_away_or_stands_upside_down(vertices, pose, refused, complaint):
    flame_check.check_head(posed(vertices, pose), "me.ply")
    with pytest.raises(ConfigError, match=complaint):
        flame_check.check_head(posed(vertices, refused), "me.ply")


def turned(face, **angles):
    return dataclasses.replace(face, pose=Pose(**{"yaw_deg": 0.0, "pitch_deg": 5.0, "roll_deg": 0.0, **angles}))


def test_the_mean_head_is_turned_about_flames_joint(face_of, vertices):
    template = vertices - CENTER_M
    head = MeanHeadShape(template)
    assert head.num_vertices == len(template)
    plain = MeanHeadShape(template, pitch_deg=0)
    assert np.allclose(plain([turned(face_of(0))]), vertices + JOINT_M, atol=1e-6)
    nose = flame_check.NOSE
    right = head([turned(face_of(0), yaw_deg=20.0)])[nose] - head([turned(face_of(0))])[nose]
    assert right[0] > 0.02  # A nose that points to the picture's right.
    assert plain([turned(face_of(0))])[nose, 1] - head([turned(face_of(0))])[nose, 1] > 0.02  # Down, by 21 degrees.
    tilted = plain([turned(face_of(0), roll_deg=90.0)])  # Clockwise: the crown goes to the right.
    assert tilted[flame_check.CROWN, 0] > 0.1
    assert np.allclose(tilted[:, 2], plain([turned(face_of(0))])[:, 2], atol=1e-6)
    flame_check.check_head(head([turned(face_of(0), yaw_deg=-30.0)]), "the mean head")


def test_the_mean_heads_pitch_is_an_option(vertices):
    assert load_source("mean_head", template=vertices).pitch_deg == PITCH_DEG
    assert load_source("mean_head:-15", template=vertices).pitch_deg == -15
    for name in ("mean_head:up", "mean_head:200", "mean_head:nan"):
        with pytest.raises(ConfigError, match="pitch"):
            load_source(name, template=vertices)


@pytest.mark.usefixtures("home")
def test_the_mean_head_is_that_of_the_published_mesh(tmp_path, vertices):
    with pytest.raises(WeightsError, match="likeness models pull fantasyid-mesh"):
        load_source("mean_head")
    path = tmp_path / "transform.pkl"
    path.write_bytes(pickle.dumps({"vertices": [vertices.astype(np.float64), vertices[:9]]}))
    assert np.array_equal(read_template(path), vertices)
    for content in ({"vertices": []}, {"vertices": [np.zeros(3)]}, 5):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(WeightsError, match="Fetch it again"):
            read_template(path)


def test_vertices_beside_a_picture_are_found(vertices, tmp_path, face_of):
    picture = tmp_path / "ann.jpg"
    face = dataclasses.replace(face_of(0), source=str(picture))
    assert find_vertices(picture) is None
    with pytest.raises(WeightsError, match=r"ann\.ply or ann\.obj or ann\.npy is missing"):
        BesideShape()([face])
    write_ply(tmp_path / "ann.ply", vertices, "ascii")
    np.save(tmp_path / "bob.npy", vertices[::-1])
    assert find_vertices(picture) == tmp_path / "ann.ply"
    other = dataclasses.replace(face_of(1), source="second.jpg")
    assert np.allclose(load_source("beside")([other, face]), vertices, atol=1e-6)
