"""Several people in one video: the region and the words of each person, and the attention masks that follow from them.

`Regions` is the user's setting. `RegionMasks` is the same over the tokens of one forward pass: the tokens of a face
attend and are attended to by the video tokens of its region and by its class word, not by other faces. One person needs
neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from einops import rearrange
from torch import Tensor

from likeness.backbones.transformer_config import frame_size_latent, has_temporal_patches
from likeness.errors import ConfigError

NormalizedBox = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the frame."""
Grid = tuple[int, int, int]
"""Frames, rows and columns of the video's tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """Regions of the people in the frame, and the attention between the regions.

    Raises:
        ConfigError: A box is not inside the picture, or a weight is out of range.

    Example:
        Regions(areas=((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    """

    areas: tuple[NormalizedBox, ...] | None = None
    """One for each person, in the order of their numbers. None makes vertical strips of equal width, from left to right
    in the order in which the prompt names people."""
    cross_region_weight: float = 1.0
    """Attention weight between the video tokens of different regions: 1 as in the base, 0 for none."""
    own_positions: bool = False
    """Restart rotary positions in every strip, for a base trained on frames of a strip's size. Needs strips."""

    def __post_init__(self) -> None:
        for box in self.areas or ():
            left, top, right, bottom = box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ConfigError(
                    f"A region is {box}; shares of the picture with 0 <= left < right <= 1 and 0 <= top < bottom <= 1 "
                    "are expected. The left half is (0, 0, 0.5, 1)."
                )
        if not 0 <= self.cross_region_weight <= 1:
            raise ConfigError(
                f"`cross_region_weight` is {self.cross_region_weight}; it must be between 0 (apart) "
                "and 1 (as the base)."
            )
        if self.own_positions and self.areas is not None:
            raise ConfigError("`own_positions` needs strips, but `areas` are given. Leave one of the two out.")

    def check(self, num_people: int) -> None:
        """Raise ConfigError unless there is one box for each person."""
        if self.areas is not None and len(self.areas) != num_people:
            raise ConfigError(
                f"{len(self.areas)} regions were given for {num_people} people. Give one for each, or none."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RegionMasks:
    """Person of every token of a pass.

    Shapes:
        video_mask: (batch, people, video_tokens): share of each token that is in a person's region; at most 1 in all
        text_mask: (batch, people, text_tokens): 1 where a word names that person
    """

    video_mask: Tensor
    text_mask: Tensor
    cross_region_weight: float = 1.0
    derived: dict[Any, Any] = field(default_factory=dict)
    """Cache of what the methods return: blocks ask for the same in every layer and step."""

    @property
    def num_people(self) -> int:
        return self.video_mask.shape[1]

    def select(self, rows: Sequence[int]) -> "RegionMasks":
        """Select rows, modulo the batch size."""
        key = ("rows", *rows)
        if key not in self.derived:
            index = torch.tensor(rows, device=self.video_mask.device) % len(self.video_mask)
            self.derived[key] = RegionMasks(
                video_mask=self.video_mask[index],
                text_mask=self.text_mask[index],
                cross_region_weight=self.cross_region_weight,
            )
        return self.derived[key]

    def modulation_per_token(self, modulation: Tensor) -> list[Tensor]:
        """Give every token the modulation of its person; unassigned tokens get the mean of all people's.

        Shapes:
            modulation: (batch, people, 6 width): shift, scale, gate of the video, then of the text
            returns: three of (batch, video_tokens, width), then three of (batch, text_tokens, width)
        """
        video, text = (
            (assignment + (1 - assignment.sum(dim=1, keepdim=True)) / self.num_people).transpose(1, 2).to(modulation)
            for assignment in (self.video_mask, self.text_mask)
        )
        parts = modulation.chunk(6, dim=-1)
        return [*(video @ part for part in parts[:3]), *(text @ part for part in parts[3:])]

    def attention_bias(self, face_tokens: int, scale: float, like: Tensor, *, order: str) -> Tensor:
        """Return the bias that is added to the logits of the joint attention.

        Args:
            face_tokens: Of all people together.
            scale: Weight of the faces' keys.
            like: A tensor of the dtype and device of the result.
            order: Of the streams: "tfv" or "tvf" (text, face, video).

        Shapes:
            returns: (batch, 1, tokens, tokens)
        """
        key = ("bias", face_tokens, scale, like.dtype, like.device, order)
        if key not in self.derived:
            assignment = {"t": self.text_mask, "f": self._face_assignment(face_tokens), "v": self.video_mask}
            rows = [torch.cat([self._attention_weight(a + b, assignment) for b in order], dim=2) for a in order]
            weights = torch.cat(rows, dim=1)
            lengths = [assignment[name].shape[2] for name in order]
            weights.split(lengths, dim=2)[order.index("f")].mul_(scale)
            self.derived[key] = weights.log().to(like)[:, None]
        return self.derived[key]

    def stock_attention_bias(self, rows: Sequence[int], like: Tensor) -> Tensor | None:
        """Return the bias for a frozen block, over text and video; None where the base's own attention is used."""
        if self.cross_region_weight == 1:
            return None
        key = ("base", *rows, like.dtype, like.device)
        if key not in self.derived:
            masks = self.select(rows)
            num_text, num_video = masks.text_mask.shape[2], masks.video_mask.shape[2]
            weights = masks.video_mask.new_ones(len(masks.video_mask), num_text + num_video, num_text + num_video)
            weights[:, num_text:, num_text:] = masks._attention_weight("vv", {"v": masks.video_mask})
            self.derived[key] = weights.log().to(like)[:, None]
        return self.derived[key]

    def cross_attention_weights(self, face_tokens: int, like: Tensor, *, order: str) -> list[Tensor]:
        """Return the weight of each person's face in the cross-attention of each token: for each (batch, tokens, 1)."""
        key = ("cross", face_tokens, like.dtype, like.device, order)
        if key not in self.derived:
            unassigned = (1 - self.text_mask.sum(dim=1, keepdim=True)) / self.num_people
            assignment = {
                "t": self.text_mask + unassigned,
                "f": self._face_assignment(face_tokens),
                "v": self.video_mask,
            }
            weights = torch.cat([assignment[name] for name in order], dim=2).to(like)
            self.derived[key] = list(weights[..., None].unbind(1))
        return self.derived[key]

    def _face_assignment(self, face_tokens: int) -> Tensor:
        """Return (batch, people, face_tokens): 1 for the tokens of each person; people one after the other."""
        each = torch.eye(self.num_people, device=self.video_mask.device, dtype=self.video_mask.dtype)
        each = each.repeat_interleave(face_tokens // self.num_people, dim=1)
        return each.expand(len(self.video_mask), -1, -1)

    def _attention_weight(self, pair: str, assignment: dict[str, Tensor]) -> Tensor:
        """Return the attention weight between the tokens of two streams: (batch, tokens, tokens), from 0 to 1."""
        first, second = assignment[pair[0]], assignment[pair[1]]
        same = first.transpose(1, 2) @ second
        if pair == "tt":
            return torch.ones_like(same)
        unassigned_first = 1 - first.sum(dim=1)[:, :, None]
        unassigned_second = 1 - second.sum(dim=1)[:, None, :]
        if pair == "vv":  # the background belongs to all
            return self.cross_region_weight + (1 - self.cross_region_weight) * (
                same + 1 - (1 - unassigned_first) * (1 - unassigned_second)
            ).clamp(max=1)
        if "f" not in pair:
            return (same + 1 - (1 - unassigned_first) * (1 - unassigned_second)).clamp(max=1)
        return same + (unassigned_first if pair[0] == "t" else 0) + (unassigned_second if pair[1] == "t" else 0)


def build_region_masks(
    regions: Regions,
    person_index: Tensor | None,
    grid: Grid,
    *,
    num_identities: int,
    text_tokens: int,
    num_people: int,
    device: torch.device,
) -> RegionMasks:
    """Build the masks of a pass.

    Args:
        regions: The user's setting.
        person_index: (prompts, text_tokens): number of the person that each word names, from 1; 0 for none. None where
            the prompts were not made by the method.
        grid: Frames, rows and columns of the video's tokens.
        num_identities: Rows of the identity tensors in this pass.
        text_tokens: Length of the text.
        num_people: In each row.
        device: Device of the pass.
    """
    regions.check(num_people)
    text_mask = torch.zeros(num_identities, num_people, text_tokens)
    order = torch.arange(num_people).expand(num_identities, -1)
    if person_index is not None:
        person_index = person_index.cpu().repeat_interleave(num_identities // len(person_index), dim=0)
        numbers = torch.arange(1, num_people + 1)[None, :, None]
        text_mask[:, :, : person_index.shape[1]] = (person_index[:, None] == numbers).float()
        is_named = (text_mask.sum(dim=2) > 0).all(dim=1, keepdim=True)
        order = torch.where(is_named, text_mask.argmax(dim=2).argsort(dim=1).argsort(dim=1), order)
    boxes = [regions.areas or [_strip(int(index), num_people) for index in row] for row in order]
    video_mask = torch.stack([torch.stack([_coverage(box, grid) for box in row]) for row in boxes])
    video_mask = video_mask / video_mask.sum(dim=1, keepdim=True).clamp(min=1)  # overlapping regions share their tokens
    return RegionMasks(
        video_mask=video_mask.to(device),
        text_mask=text_mask.to(device),
        cross_region_weight=regions.cross_region_weight,
    )


def _strip(index: int, count: int) -> NormalizedBox:
    return (index / count, 0.0, (index + 1) / count, 1.0)


def _coverage(box: NormalizedBox, grid: Grid) -> Tensor:
    """Return (video_tokens,): the share of each token that is inside a box."""
    frames, height, width = grid
    left, top, right, bottom = box

    def overlap(low: float, high: float, count: int) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float64) / count
        return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count

    cells = overlap(top, bottom, height)[:, None] * overlap(left, right, width)
    return cells.round(decimals=6).float().flatten().repeat(frames)


def restart_rope_per_region(
    config: Any, grid: Grid, num_people: int, image_rotary_emb: tuple[Tensor, Tensor] | None
) -> Any:
    """Return rotary embeddings of frames side by side, each with the positions of one frame of the base's own size.

    Raises:
        ConfigError: The video is not as wide as that many frames of the base, or the base has no rotary embedding.
    """
    side = config.patch_size
    height, width = (size // side for size in frame_size_latent(config))
    if image_rotary_emb is None or grid[1:] != (height, num_people * width):
        raise ConfigError(
            f"`own_positions` is for {num_people} people in a video of {num_people} of the base's frames side by side, "
            f"{num_people * width} x {height} tokens with rotary positions; this one has {grid[2]} x {grid[1]}. "
            "Make it so wide, or leave `own_positions` out."
        )
    grid_kwargs: Any = {}
    if has_temporal_patches(config):  # CogVideoX1.5 counts positions instead of interpolating them.
        grid_kwargs = {"grid_type": "slice", "max_size": (height, width)}
    region, size = ((0, 0), (height, width)), (height, width)
    one: Any = get_3d_rotary_pos_embed(config.attention_head_dim, region, size, grid[0], **grid_kwargs)
    return tuple(
        rearrange(
            rearrange(part, "(f y x) d -> f y x d", f=grid[0], y=height).repeat(1, 1, num_people, 1),
            "f y x d -> (f y x) d",
        ).to(given)
        for part, given in zip(one, image_rotary_emb, strict=True)
    )
