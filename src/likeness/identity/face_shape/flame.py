"""Shapes in FLAME's topology from the user's files. Nothing of FLAME or DECA ships.

FLAME and DECA are free for research only, after registration, so their networks are not run here. The user gives a
mesh, or shape numbers (betas) with FLAME's model file; the neutral head is template + shape directions times betas. A
mesh is used as it is: the released FantasyID needs it posed as in the picture, as DECA writes it, and adapters
trained with this package need it neutral.
"""

import pickle
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likeness import weights
from likeness.errors import ConfigError, WeightsError
from likeness.identity.face_shape.flame_check import NUM_VERTICES, check_head
from likeness.records import Face

MODEL_FILES = ("flame.npz", "generic_model.pkl", "flame2023_Open.pkl", "FLAME2023_Open.pkl")
"""Accepted names of FLAME's model file in `$LIKENESS_HOME/models/flame`."""
_SETUP = (
    "Give a mesh of 5,023 vertices in meters (.ply, .obj or .npy; for the released FantasyID posed as in the picture, "
    "as DECA writes `verts`), or FLAME's shape numbers (betas, a .npy) with FLAME's model file in {folder} ({names}). "
    "Both come from https://flame.is.tue.mpg.de and https://github.com/yfeng95/DECA, for research, after registration."
)


class FlameShape:
    """A source that reads one person's shape from a file; it does not read pictures."""

    topology = "flame"
    num_vertices = NUM_VERTICES

    def __init__(self, path: Path | None = None, *, model: Path | None = None) -> None:
        """Read the file.

        Args:
            path: A mesh (.ply, .obj, .npy of (5023, 3)), or a .npy of betas.
            model: FLAME's model file, by default the one in `$LIKENESS_HOME/models/flame`.

        Raises:
            WeightsError: A file is missing or not readable; the message says which file to put where.
            ConfigError: The file has other content, or a head in another unit or with flipped axes.
        """
        if path is None or not path.is_file():
            problem = "No file was named" if path is None else f"{path} does not exist"
            raise WeightsError(f"{problem}; a shape in FLAME's topology is needed. {setup_instructions()}")
        values = read_points(path)
        if values.shape != (NUM_VERTICES, 3):
            if path.suffix != ".npy" or values.ndim != 1:
                raise ConfigError(
                    f"{path} holds numbers of shape {values.shape}; ({NUM_VERTICES}, 3) vertices were expected. "
                    f"{setup_instructions()}"
                )
            values = _neutral_head(values, _find_model(model))
        check_head(values, str(path))
        self.vertices = values.astype(np.float32)

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        del faces
        return self.vertices.copy()


def setup_instructions() -> str:
    """The files that a user has to provide, and where to put them."""
    return _SETUP.format(folder=_folder(), names=" or ".join(MODEL_FILES[:3]))


def read_points(path: Path) -> NDArray[np.float64]:
    """Vertices of a mesh file, or the numbers of a .npy.

    Raises:
        ConfigError: The file has another format, or is damaged.
    """
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix == ".obj":
            lines = path.read_text().splitlines()
            values = np.array([line.split()[1:4] for line in lines if line.startswith("v ")])
        elif path.suffix == ".ply":
            values = _read_ply(path)
        else:
            raise ValueError(f"its suffix is {path.suffix or 'missing'}")
        values = np.asarray(values, dtype=np.float64).squeeze()
    except (OSError, ValueError, IndexError, KeyError, StopIteration) as error:
        raise ConfigError(f"{path} cannot be read as a shape ({error}). {setup_instructions()}") from error
    if not np.isfinite(values).all():
        raise ConfigError(f"{path} holds numbers that are not finite. Export it again.")
    return values


def _folder() -> Path:
    return weights.home() / "models" / "flame"


def _find_model(path: Path | None) -> Path:
    candidates = [_folder() / name for name in MODEL_FILES] if path is None else [path]
    model = next((file for file in candidates if file.is_file()), None)
    if model is None:
        raise WeightsError(f"Shape numbers need FLAME's model, and {candidates[0]} is not here. {setup_instructions()}")
    return model


def _neutral_head(betas: NDArray[np.float64], model: Path) -> NDArray[np.float64]:
    template, directions = _read_model(model)
    if len(betas) > directions.shape[-1]:
        raise ConfigError(
            f"{len(betas)} shape numbers were given; {model} has {directions.shape[-1]} shape directions. Give fewer."
        )
    return template + directions[..., : len(betas)] @ betas


@cache
def _read_model(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The template (5023, 3), and the first 300 shape directions (5023, 3, directions), which are those of identity."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("v_template", "shapedirs")}
        else:
            with path.open("rb") as file:
                arrays = _FlameUnpickler(file, encoding="latin1").load()
        template, directions = (np.asarray(arrays[name], np.float64) for name in ("v_template", "shapedirs"))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise WeightsError(f"{path} is no FLAME model ({error!r}). {setup_instructions()}") from error
    if template.shape != (NUM_VERTICES, 3) or directions.shape[:2] != (NUM_VERTICES, 3):
        raise WeightsError(
            f"{path} has a template of shape {template.shape} and shape directions {directions.shape}; those of FLAME "
            f"begin with ({NUM_VERTICES}, 3). {setup_instructions()}"
        )
    return template, directions[..., :300]


class _FlameUnpickler(pickle.Unpickler):
    """Unpickles arrays, sparse matrices and chumpy's wrapper around them, and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("chumpy"):
            return _ArrayStub
        allowed = {
            "numpy": {"ndarray", "dtype"},
            "numpy.core.multiarray": {"_reconstruct", "scalar"},
            "numpy._core.multiarray": {"_reconstruct", "scalar"},
            "scipy.sparse.csc": {"csc_matrix"},
            "scipy.sparse._csc": {"csc_matrix"},
            "scipy.sparse.csr": {"csr_matrix"},
            "scipy.sparse._csr": {"csr_matrix"},
            "_codecs": {"encode"},
            "copy_reg": {"_reconstructor"},
            "copyreg": {"_reconstructor"},
            "__builtin__": {"object"},
            "builtins": {"object"},
        }
        if name not in allowed.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no FLAME model needs")
        if module.startswith("scipy"):
            return _ArrayStub  # The joint regressor; a neutral head does not need it.
        return super().find_class(module, name)


class _ArrayStub:
    """Replaces chumpy's arrays, which store their values as `x`."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(self.state["x"], dtype=dtype)


def _read_ply(path: Path) -> NDArray[np.float64]:
    """Vertices of an ASCII or binary PLY; the first element must be `vertex` with scalar properties."""
    data = path.read_bytes()
    head, separator, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", errors="replace").split("\n")
    if not separator or lines[0].strip() != "ply":
        raise ValueError("it has no PLY header")
    dtypes = {"float": "f4", "float32": "f4", "double": "f8", "float64": "f8", "uchar": "u1", "uint8": "u1",
             "char": "i1", "int8": "i1", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
             "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2"}  # fmt: skip
    words = [line.split() for line in lines if line.strip()]
    start = next(number for number, line in enumerate(words) if line[:2] == ["element", "vertex"])
    count = int(words[start][2])
    properties = []
    for line in words[start + 1 :]:
        if line[0] == "element":
            break
        if line[0] == "property":
            properties.append((line[2], dtypes[line[1]]))
    encoding = next(line[1] for line in words if line[0] == "format")
    if encoding == "ascii":
        names = [name for name, _ in properties]
        rows = np.array([line.split()[: len(names)] for line in body.decode().splitlines()[:count]], dtype=np.float64)
        return rows[:, [names.index(axis) for axis in "xyz"]]
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}[encoding]
    rows = np.frombuffer(body, dtype=[(name, order + kind) for name, kind in properties], count=count)
    return np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
