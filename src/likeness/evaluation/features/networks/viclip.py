"""ViCLIP, with which VBench's overall consistency compares a video with its prompt (arXiv:2307.06942v2).

A CLIP L/14 whose vision encoder reads the patches of eight frames at once, for `ViClip-InternVid-10M-FLT.pth`.
Text is cut to 32 tokens, the last of which always ends the text: only the beginning of a long prompt is scored.
Names of modules are those of the published file.
"""

import gzip
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

NUM_FRAMES = 8
NUM_TOKENS = 32
SIDE_PX = 224
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_VOCABULARY_SIZE = 49408
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_START, _END = "<|startoftext|>", "<|endoftext|>"


class QuickGelu(nn.Module):
    """The activation of the original CLIP."""

    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(1.702 * values)


class Block(nn.Module):
    """Attention and two linear layers, each after a norm."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        layers = {
            "c_fc": nn.Linear(width, 4 * width),
            "gelu": QuickGelu(),
            "c_proj": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return tokens + self.mlp(self.ln_2(tokens))


class Stack(nn.Module):
    """Blocks under the name in the weights file."""

    def __init__(self, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            tokens = block(tokens, mask)
        return tokens


class VisionEncoder(nn.Module):
    """All patches of all frames and one class token.

    Shapes:
        video: (batch, 3, frames, height, width)
        returns: (batch, outputs)
    """

    def __init__(self, width: int, depth: int, num_heads: int, outputs: int, side_px: int, patch_px: int) -> None:
        super().__init__()
        patch = (1, patch_px, patch_px)
        self.conv1 = nn.Conv3d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((side_px // patch_px) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, NUM_FRAMES, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Stack(width, depth, num_heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, outputs))

    def forward(self, video: Tensor) -> Tensor:
        patches = rearrange(self.conv1(video), "b c t h w -> b t (h w) c")
        patches = patches + self.positional_embedding[1:]
        patches = patches + self.temporal_positional_embedding[:, :, None]
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(video), 1, -1)
        tokens = torch.cat([first, rearrange(patches, "b t n c -> b (n t) c")], dim=1)
        return self.ln_post(self.transformer(self.ln_pre(tokens)))[:, 0] @ self.proj


class TextEncoder(nn.Module):
    """CLIP's text encoder.

    Shapes:
        tokens: (batch, NUM_TOKENS) int
        returns: (batch, outputs)
    """

    def __init__(self, width: int, depth: int, num_heads: int, outputs: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(_VOCABULARY_SIZE, width)
        self.positional_embedding = nn.Parameter(torch.zeros(NUM_TOKENS, width))
        self.transformer = Stack(width, depth, num_heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.full((NUM_TOKENS, NUM_TOKENS), float("-inf"), device=tokens.device).triu(1)
        values = self.transformer(self.token_embedding(tokens) + self.positional_embedding, mask)
        # The end of the text has the largest number of all tokens.
        ends = self.ln_final(values)[torch.arange(len(tokens)), tokens.argmax(dim=-1)]
        return ends @ self.text_projection


class ViClip(nn.Module):
    """Embeds videos and prompts as unit vectors of one space."""

    def __init__(self, width: int = 1024, depth: int = 24, text_width: int = 768, text_depth: int = 12) -> None:
        super().__init__()
        self.vision_encoder = VisionEncoder(width, depth, width // 64, text_width, SIDE_PX, 14)
        self.text_encoder = TextEncoder(text_width, text_depth, text_width // 64, text_width)
        self.temp = nn.Parameter(torch.tensor(0.01))

    @torch.inference_mode()
    def embed_video(self, video: Tensor) -> Tensor:
        return normalize(self.vision_encoder(video), dim=-1)

    @torch.inference_mode()
    def embed_text(self, tokens: Tensor) -> Tensor:
        return normalize(self.text_encoder(tokens), dim=-1)


def read_tokenizer(vocabulary: Path) -> Tokenizer:
    """CLIP's byte-pair encoding from `bpe_simple_vocab_16e6.txt.gz`."""
    with gzip.open(vocabulary, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : _VOCABULARY_SIZE - 2 - 2 * 256 + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = _byte_letters()
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair) for pair in merges),
        _START,
        _END,
    ]
    tokenizer = Tokenizer(
        models.BPE(
            {word: number for number, word in enumerate(words)},
            merges,
            unk_token=_END,
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def tokenize(tokenizer: Tokenizer, text: str) -> Tensor:
    """(1, NUM_TOKENS) int64; longer text is cut, and its last token replaced by the end of the text."""
    start, end = tokenizer.token_to_id(_START), tokenizer.token_to_id(_END)
    numbers = [start, *tokenizer.encode(text, add_special_tokens=False).ids, end]
    if len(numbers) > NUM_TOKENS:
        numbers = [*numbers[: NUM_TOKENS - 1], end]
    return torch.tensor([numbers + [0] * (NUM_TOKENS - len(numbers))])


def middle_frames(num_frames: int, count: int = NUM_FRAMES) -> np.ndarray:
    """The middle frame of each of `count` equal segments; the last is repeated where there are fewer frames."""
    edges = np.linspace(0, num_frames, min(count, num_frames) + 1).astype(int)
    middles = (edges[:-1] + edges[1:] - 1) // 2
    return np.concatenate([middles, np.full(count - len(middles), middles[-1])])


def prepare(frames: np.ndarray) -> Tensor:
    """Preprocess frames: shorter side to 224, bicubic without antialiasing, center crop, CLIP's normalization.

    Shapes:
        frames: (NUM_FRAMES, height, width, 3) uint8
        returns: (1, 3, NUM_FRAMES, 224, 224)
    """
    pictures = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w").float()
    height, width = pictures.shape[-2:]
    shorter = min(height, width)
    size = (SIDE_PX * height // shorter, SIDE_PX * width // shorter)
    pictures = interpolate(pictures, size=size, mode="bicubic", align_corners=False).round().clamp(0, 255)
    top, left = round((size[0] - SIDE_PX) / 2), round((size[1] - SIDE_PX) / 2)
    pictures = pictures[..., top : top + SIDE_PX, left : left + SIDE_PX] / 255
    mean, std = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_STD).view(3, 1, 1)
    return rearrange((pictures - mean) / std, "t c h w -> 1 c t h w")


def _byte_letters() -> list[str]:
    """CLIP's letter for each byte, in the order of its vocabulary; printable bytes are themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
