"""Trigger words: from "a woman img waves" to token ids without the trigger and the positions of the class word.

Several people are numbered: "a man img1 shakes hands with a woman img2". Each class word belongs to one person.

The class word, the last word before the trigger, is repeated twice per reference picture ("the word takes
two positions per reference"), and the mask marks those positions. A word of several subword tokens is repeated as a
whole: all tokens of copy number j belong to identity token j. Works with any tokenizer of transformers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from likeness.errors import PromptError
from likeness.identity.class_words import names_nobody

if TYPE_CHECKING:  # Prompts are checked before torch is imported, which takes seconds.
    from torch import Tensor

TRIGGER = "img"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTokens:
    """Token ids for the text encoder, and the positions of class words.

    Shapes:
        ids: (batch, text_tokens), int64, padded to the maximum length
        person_index: (batch, text_tokens), int64: number of the person at class words, from 1; 0 elsewhere
    """

    ids: "Tensor"
    person_index: "Tensor"

    @property
    def mask(self) -> "Tensor":
        """(batch, text_tokens), bool: the paper's m, for all people together."""
        return self.person_index > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mention:
    """One class word with its trigger."""

    person: int
    """Number of the person, from 1."""
    before: str
    """The text between the previous mention, or the start, and the class word."""
    word: str
    """The class word."""


def split_mentions(prompt: str, trigger: str = TRIGGER) -> tuple[list[Mention], str]:
    """Split a prompt into its mentions of people, in order, and the text after the last trigger.

    One person is marked by the trigger, several by numbered triggers: "a man img1 shakes hands with a woman img2".

    Raises:
        PromptError: A trigger is missing, repeated or in capitals, does not follow a word that can name a person, or
            numbered and plain triggers are mixed.
    """
    prompt = " ".join(prompt.split())
    _refuse_capitals(prompt, trigger)
    found = list(re.finditer(rf"\b{re.escape(trigger)}(\d*)\b", prompt))
    _check_triggers(prompt, [match[1] for match in found], trigger)
    mentions, start = [], 0
    for match in found:
        words = prompt[start : match.start()].rstrip()
        if not words or not words.split()[-1][-1].isalnum():
            raise PromptError(
                f'In the prompt "{prompt}" no word stands right before `{match[0]}`. {_example(trigger, len(found))}'
            )
        before, _, word = words.rpartition(" ")
        if names_nobody(word, before):
            raise PromptError(
                f'In the prompt "{prompt}" the word before `{match[0]}` is "{word}", which names no person. '
                f"{_example(trigger, len(found))}"
            )
        mentions.append(Mention(person=int(match[1] or 1), before=before, word=word))
        start = match.end()
    return mentions, prompt[start:]


def _refuse_capitals(prompt: str, trigger: str) -> None:
    for written in re.findall(rf"\b{re.escape(trigger)}\d*\b", prompt, flags=re.IGNORECASE):
        if not written.startswith(trigger):
            raise PromptError(
                f'The prompt "{prompt}" holds `{written}`; the trigger word is written `{trigger}`, in small letters. '
                f"{_example(trigger)}"
            )


def _check_triggers(prompt: str, numbers: list[str], trigger: str) -> None:
    if not numbers:
        raise PromptError(
            f'The prompt "{prompt}" lacks the trigger word `{trigger}`. {_example(trigger)} {_example(trigger, 2)}'
        )
    if "" in numbers and any(numbers):
        raise PromptError(
            f'The prompt "{prompt}" mixes `{trigger}` and `{trigger}{max(numbers)}`. {_example(trigger, 2)}'
        )
    for number in dict.fromkeys(numbers):
        if (count := numbers.count(number)) > 1:
            advice = _example(trigger) if number == "" else _example(trigger, max(2, len(set(numbers))))
            raise PromptError(f'The prompt "{prompt}" has the trigger word `{trigger}{number}` {count} times. {advice}')
    expected = [""] if numbers == [""] else [str(number + 1) for number in range(max(2, len(numbers)))]
    if missing := [number for number in expected if number not in numbers]:
        alone = f"One person alone is marked by `{trigger}`. " if len(numbers) == 1 else ""
        raise PromptError(
            f'The prompt "{prompt}" has {", ".join(f"`{trigger}{number}`" for number in numbers)} but lacks '
            f"`{trigger}{missing[0]}`. {alone}{_example(trigger, len(expected))}"
        )


def _example(trigger: str, people: int = 1) -> str:
    if people == 1:
        return f'Write it once, after the word for the person: "a woman {trigger} waves at the camera".'
    more = "".join(f", a woman {trigger}{number}" for number in range(3, people + 1))
    return f'Two people are numbered: "a man {trigger}1 shakes hands with a woman {trigger}2{more}".'


def count_people(prompt: str, trigger: str = TRIGGER) -> int:
    """Number of people in a prompt. Raises PromptError as `split_mentions` does."""
    return len(split_mentions(prompt, trigger)[0])


def split_prompt(prompt: str, trigger: str = TRIGGER) -> tuple[str, str, str]:
    """Split into the text before the class word, the class word, and the text after the trigger.

    Raises:
        PromptError: The trigger is missing, repeated, or does not follow a word; or several people are named.
    """
    mentions, after = split_mentions(prompt, trigger)
    if len(mentions) > 1:
        raise PromptError(
            f'The prompt "{" ".join(prompt.split())}" names {len(mentions)} people, but only one is expected here. '
            f"{_example(trigger)}"
        )
    return mentions[0].before, mentions[0].word, after


def tokenize_prompts(
    prompts: Sequence[str],
    tokenizer: Any,
    *,
    num_copies: int | Sequence[int],
    max_length: int,
    trigger: str = TRIGGER,
) -> PromptTokens:
    """Tokenize prompts with trigger words.

    Args:
        prompts: Sentences that each name the same number of people.
        tokenizer: Any tokenizer of transformers.
        num_copies: Copies of the class word, equal to the identity tokens of all references; one number per person.
        max_length: Tokens, the end token included.
        trigger: The trigger word.

    Raises:
        PromptError: See `split_mentions`; the number of people differs from that of `num_copies`; or a prompt with
            repeated class words is longer than `max_length`.
    """
    import torch

    copies = (num_copies,) if isinstance(num_copies, int) else tuple(num_copies)
    tokenized = [_tokenize_prompt(prompt, tokenizer, copies, max_length, trigger) for prompt in prompts]
    ids = torch.full((len(tokenized), max_length), tokenizer.pad_token_id)
    person_index = torch.zeros(len(tokenized), max_length, dtype=torch.int64)
    for row, (tokens, people) in enumerate(tokenized):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        person_index[row, : len(people)] = torch.tensor(people)
    return PromptTokens(ids=ids, person_index=person_index)


def tokenize_without_trigger(
    prompts: Sequence[str], tokenizer: Any, *, max_length: int, trigger: str = TRIGGER
) -> PromptTokens:
    """Tokenize prompts for a method that does not change text embeddings; a trigger word is optional and removed.

    Raises:
        PromptError: A trigger is misused (see `split_prompt`), or a prompt is longer than `max_length`.
    """
    import torch

    ids = torch.full((len(prompts), max_length), tokenizer.pad_token_id)
    for row, prompt in enumerate(prompts):
        if re.search(rf"\b{re.escape(trigger)}\d*\b", prompt, flags=re.IGNORECASE):
            split_prompt(prompt, trigger)
            tokens, _ = _tokenize_prompt(prompt, tokenizer, (1,), max_length, trigger)
        else:
            check_prompt_length(prompt, tokenizer, max_length=max_length)
            tokens = list(tokenizer(prompt).input_ids)
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return PromptTokens(ids=ids, person_index=torch.zeros_like(ids))


def _tokenize_prompt(
    prompt: str, tokenizer: Any, num_copies: tuple[int, ...], max_length: int, trigger: str
) -> tuple[list[int], list[int]]:
    """Token ids, and the person index of each token."""
    mentions, after = split_mentions(prompt, trigger)
    if len(mentions) != len(num_copies):
        raise PromptError(
            f'The prompt "{prompt}" names {len(mentions)} {"person" if len(mentions) == 1 else "people"}, but faces of '
            f"{len(num_copies)} were given. {_example(trigger, len(num_copies))}"
        )
    prefix, suffix = _special_tokens(tokenizer, mentions[0].word)
    tokens, person_index, num_repeated = list(prefix), [0] * len(prefix), 0
    for number, mention in enumerate(mentions):
        word = _tokenize_plain(tokenizer, mention.word)
        if not mention.before:
            before = []
        elif number == 0:
            before = _tokenize_plain(tokenizer, mention.before)
        else:
            before = _tokenize_after(tokenizer, mentions[number - 1].word, mention.before)
        copies = num_copies[mention.person - 1]
        tokens += [*before, *(copies * word)]
        person_index += [0] * len(before) + [mention.person] * (copies * len(word))
        num_repeated += (copies - 1) * len(word)
    suffix_tokens = [*_tokenize_after(tokenizer, mentions[-1].word, after), *suffix]
    tokens, person_index = tokens + suffix_tokens, person_index + [0] * len(suffix_tokens)
    trigger_ids = {tokenizer.convert_tokens_to_ids(name) for name in (trigger, f"{trigger}1", f"{trigger}2")}
    # A trigger added to the vocabulary would silently index an untrained row of a padded embedding table.
    assert not (trigger_ids - {None, tokenizer.unk_token_id}).intersection(tokens)
    if len(tokens) > max_length:
        named = " and ".join(f'"{mention.word}"' for mention in mentions)
        raise PromptError(
            f'The prompt "{prompt}" takes {len(tokens)} tokens, {num_repeated} of them because the '
            f"word {named} is repeated for the references; at most {max_length} fit. Shorten the prompt or "
            "give fewer references."
        )
    return tokens, person_index


def check_prompt_length(text: str, tokenizer: Any, *, max_length: int, what: str = "prompt") -> None:
    """Refuse a text that the tokenizer would truncate.

    Raises:
        PromptError: It has more tokens than fit. The message contains the longest beginning that fits.
    """
    count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
    if count <= max_length:
        return
    words = text.split()
    low, high = 0, len(words)
    while low < high:  # Binary search for the longest beginning that fits.
        middle = (low + high + 1) // 2
        fits = len(tokenizer(" ".join(words[:middle]), verbose=False).input_ids) <= max_length
        low, high = (middle, high) if fits else (low, middle - 1)
    shorter = " ".join(words[:low])
    if "," in shorter:
        shorter = shorter[: shorter.rindex(",")]
    advice = f' This much fits: "{shorter.rstrip(",.; ")}"' if shorter else ""
    raise PromptError(f"The {what} takes {count} tokens; at most {max_length} fit. Shorten it.{advice}")


def _tokenize_plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _tokenize_after(tokenizer: Any, word: str, after: str) -> list[int]:
    """Tokenize `after` in the context of `word`: on its own, ", reading" would begin with a word-boundary token."""
    word_tokens, joined_tokens = _tokenize_plain(tokenizer, word), _tokenize_plain(tokenizer, word + after)
    if joined_tokens[: len(word_tokens)] == word_tokens:
        return joined_tokens[len(word_tokens) :]
    return _tokenize_plain(tokenizer, after.strip())


def _special_tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer adds before and after every text."""
    without_special, with_special = _tokenize_plain(tokenizer, text), list(tokenizer(text).input_ids)
    for start in range(len(with_special) - len(without_special) + 1):
        if with_special[start : start + len(without_special)] == without_special:
            return with_special[:start], with_special[start + len(without_special) :]
    return [], []
