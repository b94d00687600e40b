"""The trigger word: from "a woman img waves" to token ids without the trigger and the mask of the class word.

The last word before the trigger is written twice for each reference picture (element M6: "the word takes two
positions per reference"), and the mask marks those positions. A word of several pieces is repeated whole, so copy
number j of the word, all its pieces, stands for identity token j. Works with any tokenizer of transformers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likeness.errors import PromptError

TRIGGER = "img"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTokens:
    """What the text encoder reads, and where the person stands in it.

    Shapes:
        ids: (batch, text_tokens), int64, padded to the maximum length
        mask: (batch, text_tokens), bool: the paper's m
    """

    ids: Tensor
    mask: Tensor


def split_prompt(prompt: str, trigger: str = TRIGGER) -> tuple[str, str, str]:
    """Split into the text before the class word, the class word, and the text after the trigger.

    Raises:
        PromptError: The trigger is missing, stands twice, or does not follow a word.
    """
    prompt = " ".join(prompt.split())
    found = list(re.finditer(rf"\b{re.escape(trigger)}\b", prompt))
    example = f'Write it once, after the word for the person: "a woman {trigger} waves at the camera".'
    if not found:
        raise PromptError(f'The prompt "{prompt}" lacks the trigger word `{trigger}`. {example}')
    if len(found) > 1:
        raise PromptError(
            f'The prompt "{prompt}" has the trigger word `{trigger}` {len(found)} times. {example}'
        )
    before, after = prompt[: found[0].start()].rstrip(), prompt[found[0].end() :]
    words = before.split()
    if not words or not words[-1][-1].isalnum():
        raise PromptError(f'In the prompt "{prompt}" no word stands right before `{trigger}`. {example}')
    return " ".join(words[:-1]), words[-1], after


def tokenize_prompts(
    prompts: Sequence[str], tokenizer: Any, *, num_copies: int, max_length: int, trigger: str = TRIGGER
) -> PromptTokens:
    """Tokenize prompts that hold the trigger word.

    Args:
        prompts: Sentences with the trigger word once in each.
        tokenizer: Any tokenizer of transformers.
        num_copies: How often the class word is written: identity tokens of all references together.
        max_length: Tokens, the end token included.
        trigger: The trigger word.

    Raises:
        PromptError: See `split_prompt`; or a prompt is longer than `max_length` once the class word is repeated.
    """
    rows = [_tokenize(prompt, tokenizer, num_copies, max_length, trigger) for prompt in prompts]
    ids = torch.full((len(rows), max_length), tokenizer.pad_token_id)
    mask = torch.zeros(len(rows), max_length, dtype=torch.bool)
    for row, (tokens, start, stop) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, start:stop] = True
    return PromptTokens(ids=ids, mask=mask)


def tokenize_clean(
    prompts: Sequence[str], tokenizer: Any, *, max_length: int, trigger: str = TRIGGER
) -> PromptTokens:
    """Tokenize prompts for a method that writes nothing into them; a trigger word may stand there and is left out.

    Raises:
        PromptError: See `split_prompt`, of prompts with a trigger; or a prompt is longer than `max_length`.
    """
    ids = torch.full((len(prompts), max_length), tokenizer.pad_token_id)
    for row, prompt in enumerate(prompts):
        if re.search(rf"\b{re.escape(trigger)}\b", prompt):
            tokens, _, _ = _tokenize(prompt, tokenizer, 1, max_length, trigger)
        else:
            tokens = list(tokenizer(prompt).input_ids)
        if len(tokens) > max_length:
            raise PromptError(
                f'The prompt "{prompt}" takes {len(tokens)} tokens; at most {max_length} fit. Shorten it.'
            )
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return PromptTokens(ids=ids, mask=torch.zeros(ids.shape, dtype=torch.bool))


def _tokenize(
    prompt: str, tokenizer: Any, num_copies: int, max_length: int, trigger: str
) -> tuple[list[int], int, int]:
    before_text, word_text, after_text = split_prompt(prompt, trigger)
    prefix, suffix = _special_tokens(tokenizer, word_text)
    before = _pieces(tokenizer, before_text) if before_text else []
    word = _pieces(tokenizer, word_text)
    after = _continue(tokenizer, word_text, after_text)
    start = len(prefix) + len(before)
    stop = start + num_copies * len(word)
    tokens = [*prefix, *before, *(num_copies * word), *after, *suffix]
    trigger_id = tokenizer.convert_tokens_to_ids(trigger)
    # An added trigger would index an untrained row of a padded embedding table, and nothing would complain.
    assert trigger_id is None or trigger_id == tokenizer.unk_token_id or trigger_id not in tokens
    if len(tokens) > max_length:
        raise PromptError(
            f'The prompt "{prompt}" takes {len(tokens)} tokens, {len(word) * (num_copies - 1)} of them because the '
            f'word "{word_text}" is repeated for the references; at most {max_length} fit. Shorten the prompt or '
            "give fewer references."
        )
    return tokens, start, stop


def _pieces(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _continue(tokenizer: Any, word: str, after: str) -> list[int]:
    """Tokenize `after` as it stands behind `word`: alone, ", reading" would begin with a lone word mark."""
    head, whole = _pieces(tokenizer, word), _pieces(tokenizer, word + after)
    if whole[: len(head)] == head:
        return whole[len(head) :]
    return _pieces(tokenizer, after.strip())


def _special_tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind every text."""
    bare, whole = _pieces(tokenizer, text), list(tokenizer(text).input_ids)
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []
