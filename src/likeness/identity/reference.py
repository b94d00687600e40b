"""Turns references (`Face` records or pictures) into the arrays that a method's encoders read."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from likeness.errors import ConfigError
from likeness.media.pictures import resize
from likeness.records import Face

_log = logging.getLogger(__name__)

EncoderInput = Literal["head_crop", "whole_image"]
"""The picture that an image encoder reads: the aligned head, or the whole picture, resized and center-cropped."""

FaceInput = Face | str | Path
"""A reference: a `Face` record or the path of a picture."""


def read_references(
    faces: FaceInput | Sequence[FaceInput], *, embedding_width: int, encoder_input: EncoderInput = "head_crop"
) -> tuple[np.ndarray, np.ndarray]:
    """Read all references and stack their pictures and embeddings.

    Shapes:
        returns: pictures (references, height, width, 3) uint8, embeddings (references, embedding_width)

    Raises:
        ConfigError: There is no reference, or an embedding has another width than `embedding_width`.
        FaceError: A picture has no usable face, or several.
    """
    records = read_faces(faces)
    for record in records:
        if record.embedding.shape != (embedding_width,):
            raise ConfigError(
                f"The embedding of {record.source}, read by `{record.engine}`, has {record.embedding.size} numbers; "
                f"the adapter was trained on {embedding_width}. Read the face with the engine used in training."
            )
    pictures = stack_whole_images(records) if encoder_input == "whole_image" else [face.crop for face in records]
    return np.stack(pictures), np.stack([face.embedding for face in records])


def stack_whole_images(faces: Sequence[Face]) -> list[np.ndarray]:
    """Whole pictures for an encoder that was trained on them.

    A saved character and frames of a video have none; their head crops are used instead, with a warning.
    """
    if without_image := [face.source for face in faces if face.whole_image is None]:
        _log.warning(
            "%s: the whole picture is not at hand, so the image encoder reads the head alone, on which it was not "
            "trained. Give the picture itself instead of a saved character or a video.",
            ", ".join(without_image),
        )
    return [face.crop if face.whole_image is None else face.whole_image for face in faces]


def stack_head_crops(faces: Sequence[Face], size_px: int) -> np.ndarray:
    """Head crops for an encoder with an input of `size_px`: the large crops if the small ones have fewer pixels.

    A face without a large crop (of a saved character) contributes its small crop, enlarged.

    Shapes:
        returns: (references, side, side, 3) uint8
    """
    details = [face.detail for face in faces if face.detail is not None]
    if not details or faces[0].crop.shape[0] >= size_px:
        return np.stack([face.crop for face in faces])
    side = details[0].shape[0]
    return np.stack([resize(face.crop, side, side) if face.detail is None else face.detail for face in faces])


def read_faces(faces: FaceInput | Sequence[FaceInput]) -> list[Face]:
    """Read all references as `Face` records.

    Raises:
        ConfigError: There is no reference.
        FaceError: A picture has no usable face, or several.
    """
    if isinstance(faces, (str, Path, Face)):
        faces = [faces]
    if not faces:
        raise ConfigError("No reference face was given; at least one is needed. Pass a picture.")
    return [_to_face(face) for face in faces]


def _to_face(face: FaceInput) -> Face:
    if isinstance(face, Face):
        return face
    from likeness.faces import read_face  # loads the face engine, only if a picture is given

    return read_face(face)
