"""Captions of samples as token ids."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor

from likeness.errors import PromptError
from likeness.methods.method import Method
from likeness.training.data.datasets import Shards


def caption(facts: dict[str, Any]) -> str:
    """The prompt of a sample without its trigger words."""
    return re.sub(r" img\d?\b", "", facts["prompt"])


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Padded token ids as the stock pipeline makes them: (prompts, length)."""
    padded = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return padded.input_ids


def tokenize_captions(tokenizer: Any, shards: Shards, length: int) -> Tensor:
    """Token ids of the caption of every sample: (samples, length)."""
    return tokenize(tokenizer, [caption(facts) for facts in shards.facts], length)


class TokenizedPrompts:
    """Token ids of the prompts of a data set.

    Attributes:
        plain: Captions, (samples, tokens).
        empty: The empty prompt, (tokens,).
        ids: Prompts as a method tokenizes them for one and for two references, by number of references.
        masks: Which of those tokens are the class word, boolean, by number of references.
    """

    plain: Any
    ids: dict[int, Any]
    masks: dict[int, Any]

    def __init__(self, pipe: CogVideoXPipeline, method: Method, shards: Shards) -> None:
        length = pipe.transformer.config.max_text_seq_length
        rows = [tokenize_prompt(pipe.tokenizer, method, facts["prompt"], length) for facts in shards.facts]
        self.plain = _stack([row.plain for row in rows], length)
        self.empty = tokenize(pipe.tokenizer, [""], length)[0]
        self.ids = {count: _stack([row.ids[count] for row in rows], length) for count in COUNTS}
        self.masks = {count: _stack([row.masks[count] for row in rows], length).bool() for count in COUNTS}


class LazyPrompts(TokenizedPrompts):
    """The same, tokenized when they are read, for data sets of any size."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method, shards: Shards) -> None:
        length = pipe.transformer.config.max_text_seq_length
        self.empty = tokenize(pipe.tokenizer, [""], length)[0]

        @lru_cache(maxsize=1024)
        def read(row: int) -> TokenizedPrompt:
            return tokenize_prompt(pipe.tokenizer, method, shards.facts[row]["prompt"], length)

        self.plain = _LazyRows(lambda row: read(row).plain)
        self.ids = {count: _LazyRows(lambda row, count=count: read(row).ids[count]) for count in COUNTS}
        self.masks = {count: _LazyRows(lambda row, count=count: read(row).masks[count]) for count in COUNTS}


def read_prompts(pipe: CogVideoXPipeline, method: Method, shards: Shards) -> TokenizedPrompts:
    """The prompts of a data set, tokenized at once if it is in memory."""
    return (TokenizedPrompts if shards.is_in_memory else LazyPrompts)(pipe, method, shards)


COUNTS = (1, 2)
"""Numbers of references that a prompt is tokenized for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedPrompt:
    """One prompt; shapes (tokens,)."""

    plain: Tensor
    ids: dict[int, Tensor]
    masks: dict[int, Tensor]


def tokenize_prompt(tokenizer: Any, method: Method, prompt: str, length: int) -> TokenizedPrompt:
    """The caption of a prompt, and the prompt as the method tokenizes it for each number of references.

    A prompt that is too long with repeated class words is its caption without a class word: then only the adapters get
    the identity.
    """
    plain = tokenize(tokenizer, [caption({"prompt": prompt})], length)[0]
    ids, masks = {}, {}
    for count in COUNTS:
        try:
            tokens = method.tokenize([prompt], tokenizer, num_references=count, max_length=length)
            ids[count], masks[count] = tokens.ids[0], tokens.mask[0]
        except PromptError:
            ids[count], masks[count] = plain, torch.zeros(plain.shape, dtype=torch.bool)
    return TokenizedPrompt(plain=plain, ids=ids, masks=masks)


class _LazyRows:
    """Rows that a function makes when they are read."""

    def __init__(self, make: Callable[[int], Tensor]) -> None:
        self.make = make

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.stack([self.make(row) for row in rows.tolist()])


def _stack(rows: list[Tensor], length: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, length, dtype=torch.long)
