"""A person's three-dimensional shape: where it comes from, how it is measured, and how it is changed.

`source` is the protocol, `learned` what ships; `sliders` move a head, `proportions` measure one.
"""

from likeness.identity.face_shape.source import SOURCES, ShapeSource, load_source

__all__ = ["SOURCES", "ShapeSource", "load_source"]
