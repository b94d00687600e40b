"""Captions of samples as token ids."""

import re
from collections.abc import Sequence
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

    def __init__(self, pipe: CogVideoXPipeline, method: Method, shards: Shards) -> None:
        length = pipe.transformer.config.max_text_seq_length
        self.plain = tokenize_captions(pipe.tokenizer, shards, length)
        self.empty = tokenize(pipe.tokenizer, [""], length)[0]
        self.ids: dict[int, Tensor] = {}
        self.masks: dict[int, Tensor] = {}
        for count in (1, 2):
            ids, masks = self.plain.clone(), torch.zeros(self.plain.shape, dtype=torch.bool)
            for row, facts in enumerate(shards.facts):
                try:
                    tokens = method.tokenize([facts["prompt"]], pipe.tokenizer, num_references=count, max_length=length)
                except PromptError:  # Too long with repeated class words: only the adapters get the identity.
                    continue
                ids[row], masks[row] = tokens.ids[0], tokens.mask[0]
            self.ids[count], self.masks[count] = ids, masks
