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
from likeness.training.data.datasets import ShardedDataset


def caption_without_trigger(metadata: dict[str, Any]) -> str:
    """The prompt of a sample without its trigger words."""
    return re.sub(r" img\d?\b", "", metadata["prompt"])


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Padded token ids as the stock pipeline makes them: (prompts, length)."""
    padded = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return padded.input_ids


def tokenize_captions(tokenizer: Any, dataset: ShardedDataset, length: int) -> Tensor:
    """Token ids of the caption of every sample: (samples, length)."""
    return tokenize(tokenizer, [caption_without_trigger(metadata) for metadata in dataset.metadata], length)


class TokenizedPrompts:
    """Token ids of the prompts of a data set.

    Attributes:
        caption_ids: Captions, (samples, tokens).
        empty_ids: The empty prompt, (tokens,).
        prompt_ids: Prompts as a method tokenizes them for one and for two references, by number of references.
        class_masks: Which of those tokens are the class word, boolean, by number of references.
    """

    caption_ids: Any
    prompt_ids: dict[int, Any]
    class_masks: dict[int, Any]

    def __init__(self, pipe: CogVideoXPipeline, method: Method, dataset: ShardedDataset) -> None:
        length = pipe.transformer.config.max_text_seq_length
        rows = [tokenize_prompt(pipe.tokenizer, method, metadata["prompt"], length) for metadata in dataset.metadata]
        self.caption_ids = _stack([row.caption_ids for row in rows], length)
        self.empty_ids = tokenize(pipe.tokenizer, [""], length)[0]
        self.prompt_ids = {count: _stack([row.prompt_ids[count] for row in rows], length) for count in REFERENCE_COUNTS}
        self.class_masks = {
            count: _stack([row.class_masks[count] for row in rows], length).bool() for count in REFERENCE_COUNTS
        }


class LazyPrompts(TokenizedPrompts):
    """The same, tokenized when they are read, for data sets of any size."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method, dataset: ShardedDataset) -> None:
        length = pipe.transformer.config.max_text_seq_length
        self.empty_ids = tokenize(pipe.tokenizer, [""], length)[0]

        @lru_cache(maxsize=1024)
        def read(row: int) -> TokenizedPrompt:
            return tokenize_prompt(pipe.tokenizer, method, dataset.metadata[row]["prompt"], length)

        self.caption_ids = _LazyRows(lambda row: read(row).caption_ids)
        self.prompt_ids = {
            count: _LazyRows(lambda row, count=count: read(row).prompt_ids[count]) for count in REFERENCE_COUNTS
        }
        self.class_masks = {
            count: _LazyRows(lambda row, count=count: read(row).class_masks[count]) for count in REFERENCE_COUNTS
        }


def tokenize_dataset(pipe: CogVideoXPipeline, method: Method, dataset: ShardedDataset) -> TokenizedPrompts:
    """The prompts of a data set, tokenized at once if it is in memory."""
    return (TokenizedPrompts if dataset.is_in_memory else LazyPrompts)(pipe, method, dataset)


REFERENCE_COUNTS = (1, 2)
"""Numbers of references that a prompt is tokenized for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedPrompt:
    """One prompt; shapes (tokens,)."""

    caption_ids: Tensor
    prompt_ids: dict[int, Tensor]
    class_masks: dict[int, Tensor]


def tokenize_prompt(tokenizer: Any, method: Method, prompt: str, length: int) -> TokenizedPrompt:
    """The caption of a prompt, and the prompt as the method tokenizes it for each number of references.

    A prompt that is too long with repeated class words is its caption without a class word: then only the adapters get
    the identity.
    """
    caption_ids = tokenize(tokenizer, [caption_without_trigger({"prompt": prompt})], length)[0]
    prompt_ids, class_masks = {}, {}
    for count in REFERENCE_COUNTS:
        try:
            tokens = method.tokenize([prompt], tokenizer, num_references=count, max_length=length)
            prompt_ids[count], class_masks[count] = tokens.ids[0], tokens.mask[0]
        except PromptError:
            prompt_ids[count], class_masks[count] = caption_ids, torch.zeros(caption_ids.shape, dtype=torch.bool)
    return TokenizedPrompt(caption_ids=caption_ids, prompt_ids=prompt_ids, class_masks=class_masks)


class _LazyRows:
    """Rows that a function makes when they are read."""

    def __init__(self, make: Callable[[int], Tensor]) -> None:
        self.make = make

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.stack([self.make(row) for row in rows.tolist()])


def _stack(rows: list[Tensor], length: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, length, dtype=torch.long)
