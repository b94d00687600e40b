"""3D face shapes: sources of vertices, sliders that edit them and measurements of proportions.

`source` has the protocol `ShapeSource`, `learned` the source that ships.
"""

from likeness.identity.face_shape.source import SOURCES, ShapeSource, load_source

__all__ = ["SOURCES", "ShapeSource", "load_source"]
