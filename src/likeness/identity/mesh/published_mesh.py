"""Reads the mesh of the released FantasyID, `transform.pkl`: FLAME's head at several levels and the maps between them.

A pickle could run any code; this reader builds arrays only. The file is under FLAME's licence and does not ship.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likeness.errors import WeightsError
from likeness.identity.mesh.halfedges import openmesh_spirals
from likeness.identity.mesh.spirals import MeshTopology

MESH_FILE = Path("transform.pkl")
_REMEDY = "Fetch it again: `likeness models pull fantasyid-mesh --preset research`."


class _SparseMatrix:
    """Replaces scipy's compressed-column matrix; the unpickler sets shape, data, indices and pointers as attributes."""


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays and compressed-column matrices, and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        top = module.split(".")[0]
        if top == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if top == "numpy" and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]
        if module.startswith("scipy.sparse") and name == "csc_matrix":
            return _SparseMatrix
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def read_template(path: Path) -> NDArray[np.float32]:
    """The vertices of the finest level, (vertices, 3): FLAME's mean head.

    Raises:
        WeightsError: The file is missing, damaged, or has other content.
    """
    try:
        vertices = np.asarray(_load(path)["vertices"][0], np.float32)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path} does not hold a mesh ({error!r}). {_REMEDY}") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise WeightsError(f"{path} holds vertices of shape {vertices.shape}, not (vertices, 3). {_REMEDY}")
    return vertices


def _load(path: Path) -> Any:
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (OSError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"The mesh at {path} cannot be read: {error}. {_REMEDY}") from error


def read_mesh(path: Path, *, levels: int = 3, spiral_length: int = 9) -> MeshTopology:
    """Read the finest levels of the published mesh, with spirals as the published code computes them.

    Raises:
        WeightsError: The file is missing, damaged, or has other content.
    """
    try:
        content = _load(path)
        vertices = [np.asarray(array, np.float64) for array in content["vertices"]][:levels]
        triangles = [np.asarray(array).astype(np.int64) for array in content["face"]][:levels]
        kept = [_selected_vertices(array) for array in content["down_transform"][: levels - 1]]
        upsampling = [_barycentric_rows(array) for array in content["up_transform"][: levels - 1]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path} does not hold a mesh at {levels} levels ({error!r}). {_REMEDY}") from error
    return MeshTopology(
        vertices=tuple(array.astype(np.float32) for array in vertices),
        triangles=tuple(triangles),
        spirals=tuple(
            openmesh_spirals(points, faces, spiral_length) for points, faces in zip(vertices, triangles, strict=True)
        ),
        kept=tuple(kept),
        up_indices=tuple(indices for indices, _ in upsampling),
        up_weights=tuple(weights for _, weights in upsampling),
    )


def _to_coordinate_format(matrix: Any) -> tuple[tuple[int, int], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shape, rows, columns and values of a compressed-column matrix."""
    counts = np.diff(matrix.indptr)
    columns = np.repeat(np.arange(len(counts)), counts)
    return tuple(matrix._shape), np.asarray(matrix.indices), columns, np.asarray(matrix.data)


def _selected_vertices(matrix: Any) -> NDArray[np.int64]:
    """Index of the fine vertex for each coarse one; the down-sampling matrix must select single vertices."""
    (coarse, _), rows, columns, values = _to_coordinate_format(matrix)
    if not np.array_equal(np.sort(rows), np.arange(coarse)) or not (values == 1).all():
        raise ValueError("its down-sampling matrix does not select one vertex per row")
    kept = np.empty(coarse, np.int64)
    kept[rows] = columns
    return kept


def _barycentric_rows(matrix: Any) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Triangle corners and barycentric weights of each fine vertex; some published weights are negative."""
    (fine, _), rows, columns, values = _to_coordinate_format(matrix)
    indices, weights = np.zeros((fine, 3), np.int64), np.zeros((fine, 3), np.float32)
    order = np.argsort(rows, kind="stable")
    slots = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])  # 0, 1, 2 within each row.
    indices[rows[order], slots] = columns[order]
    weights[rows[order], slots] = values[order]
    return indices, weights
