"""Aligned face crops from five landmarks, differentiable in the picture. It detects nothing.

`likeness.faces.geometry.align` does the same for uint8 pictures without gradients; parity is tested. ArcFace's crop is
that of arXiv:1801.07698v4, section 3.1: a similarity transform of five points into 112 x 112 pixels.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.faces.engines.onnx_engine import CHIP_POINTS, CHIP_PX
from likeness.faces.geometry.align import apply_affine, fit_similarity
from likeness.faces.geometry.layouts import EYE_CENTERS, LandmarkLayout

Residuals = Literal["template", "picture"]
_MIN_AVERAGED_SHRINK = 2.0
"""A crop that shrinks the picture more than this averages blocks first, as `geometry.align.warp` does."""


def arcface_template(layout: LandmarkLayout) -> Tensor:
    """Where ArcFace's crop has the landmarks of a layout: (5, 2), as shares of the crop's side.

    It is exact for eye centers, tip of the nose and corners of the mouth, ArcFace's own points. Of dlib's points (eye
    corners, base of the nose) only the mean of an eye's corners is a point of ArcFace. Their template is therefore the
    frontal mean head of `layouts` in ArcFace's crop: right for that head, shifted for others and for turned heads
    (docs/evidence.md, "Identity loss at 5B, counted").
    """
    points = CHIP_POINTS
    if layout is not EYE_CENTERS:
        points = apply_affine(fit_similarity(EYE_CENTERS.template, CHIP_POINTS), layout.template)
    return torch.tensor((points + 0.5) / CHIP_PX, dtype=torch.float32)


def align_faces(
    pictures: Tensor,
    landmarks: Tensor,
    template: Tensor,
    size_px: int,
    *,
    fill: float | None = None,
    antialias: bool = False,
    residuals: Residuals = "template",
) -> Tensor:
    """Crop faces by the least-squares similarity between their landmarks and a template, bilinear.

    Shapes:
        pictures: (batch, channels, height, width)
        landmarks: (batch, 5, 2) px of the pictures; the first pixel's center is 0
        template: (5, 2), shares of the crop's side
        returns: (batch, channels, size_px, size_px)

    Args:
        pictures: Any values.
        landmarks: In the layout of `template`.
        template: Where the landmarks lie in the crop.
        size_px: Side of the crop.
        fill: Value outside the picture, by dlib's rule: where not all four neighbors are inside. None repeats the edge.
        antialias: Average blocks of pixels first where the crop shrinks the picture by two or more.
        residuals: Whether the squared distances are those in the template, as face engines have it, or in the picture.
    """
    source = source_points(landmarks, template, size_px, residuals).to(pictures.device)
    if not antialias:
        return _sample(pictures, source, fill)
    blocks = _block_sizes(landmarks, template, size_px, min(pictures.shape[-2:]))
    if len(set(blocks)) == 1:
        return _sample(*_average_blocks(pictures, source, blocks[0]), fill)
    crops = [
        _sample(*_average_blocks(pictures[row : row + 1], source[row : row + 1], block), fill)
        for row, block in enumerate(blocks)
    ]
    return torch.cat(crops)


def source_points(landmarks: Tensor, template: Tensor, size_px: int, residuals: Residuals = "template") -> Tensor:
    """Where each pixel of an aligned crop lies in the picture: (batch, size_px, size_px, 2) px."""
    factor, shift = _fit_similarity(landmarks, template, residuals)
    pixels = (torch.arange(size_px, dtype=factor.real.dtype, device=factor.device) + 0.5) / size_px
    row, column = torch.meshgrid(pixels, pixels, indexing="ij")
    return _apply_similarity(factor, shift, torch.complex(column, row))


def crop_corners(landmarks: Tensor, template: Tensor) -> Tensor:
    """The four corners of the aligned crop in the picture: (batch, 4, 2) px."""
    factor, shift = _fit_similarity(landmarks, template, "template")
    corners = torch.tensor([0, 1, 1j, 1 + 1j], dtype=factor.dtype, device=factor.device)
    return _apply_similarity(factor, shift, corners)


def _fit_similarity(landmarks: Tensor, template: Tensor, residuals: Residuals) -> tuple[Tensor, Tensor]:
    """The similarity from shares of the crop's side to pixels, as complex factor and shift, (batch,) each.

    A similarity in the plane is `points = turn * unit + shift` in complex numbers, so the fit is one division. It is
    fitted in pixels: in coordinates from -1 to 1 it would be none where width and height differ.
    """
    dtype = torch.promote_types(landmarks.dtype, torch.float32)
    points = torch.view_as_complex(landmarks.to(dtype).contiguous())
    unit = torch.view_as_complex(template.to(points.device, dtype).contiguous())
    centers = points.mean(dim=1, keepdim=True)
    a, b = unit - unit.mean(), points - centers
    product = (a.conj() * b).sum(dim=1)
    # Least squares in the template gives the other direction, b to a, which is inverted.
    factor = (
        b.abs().square().sum(dim=1) / product.conj() if residuals == "template" else product / a.abs().square().sum()
    )
    return factor, centers[:, 0] - factor * unit.mean()


def _apply_similarity(factor: Tensor, shift: Tensor, points: Tensor) -> Tensor:
    view = (-1,) + (1,) * points.ndim
    return torch.view_as_real(factor.view(view) * points + shift.view(view))


def _block_sizes(landmarks: Tensor, template: Tensor, size_px: int, max_size: int) -> list[int]:
    """Side of the blocks that are averaged for each face; 1 for none."""
    ratios = (_fit_similarity(landmarks.detach(), template, "template")[0].abs() / size_px).tolist()
    return [max(1, min(round(ratio), max_size)) if ratio >= _MIN_AVERAGED_SHRINK else 1 for ratio in ratios]


def _average_blocks(pictures: Tensor, source: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Pictures of averaged blocks, and the same points in their pixels: coarse pixel i begins at i * block."""
    if block == 1:
        return pictures, source
    return F.avg_pool2d(pictures, block), (source - (block - 1) / 2) / block


def _sample(pictures: Tensor, source: Tensor, fill: float | None) -> Tensor:
    size = torch.tensor([pictures.shape[-1], pictures.shape[-2]], dtype=source.dtype, device=source.device)
    grid = 2 * (source + 0.5) / size - 1  # grid_sample's coordinates run from -1 to 1 over the picture's edges.
    crops = F.grid_sample(pictures, grid.to(pictures.dtype), padding_mode="border", align_corners=False)
    if fill is None:
        return crops
    is_inside = ((source >= 0) & (source < size - 1)).all(dim=-1)
    return torch.where(is_inside.unsqueeze(1), crops, torch.full_like(crops, fill))
