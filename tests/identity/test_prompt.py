import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from likeness.errors import PromptError
from likeness.identity.prompt import check_prompt_length, split_prompt, tokenize_prompts, tokenize_without_trigger

WORDS = ["a", "woman", "elderly", "police", "man", "waves", "reading", "at", "the", "camera"]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Pieces with T5's word mark: known words whole, others in letters, punctuation apart."""
    pieces = ["\u2581" + word for word in WORDS] + ["\u2581", "\u2581offi", "cer", ",", "."]
    pieces += list("abcdefghijklmnopqrstuvwxyz") + ["\u2581" + letter for letter in "bcdefghijklmnopqrstuvwxyz"]
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    scored += [(piece, -10.0 + 2 * len(piece)) for piece in dict.fromkeys(pieces)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def word_level() -> PreTrainedTokenizerFast:
    """Whole words, as a small tokenizer of one's own might have; the trigger is one of them."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", "img", ",", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(params=[sentencepiece_like, word_level], ids=["pieces", "words"])
def tokenizer(request):
    return request.param()


def tokens_of(tokenizer, prompt, num_copies=2, max_length=16):
    tokens = tokenize_prompts([prompt], tokenizer, num_copies=num_copies, max_length=max_length)
    return tokenizer.convert_ids_to_tokens(tokens.ids[0].tolist()), tokens.mask[0].tolist()


def test_class_word_takes_two_positions_for_each_reference():
    words, mask = tokens_of(word_level(), "a woman img waves", num_copies=4)
    assert words[:7] == ["a", "woman", "woman", "woman", "woman", "waves", "</s>"]
    assert set(words[7:]) == {"<pad>"}
    assert [position for position, is_marked in enumerate(mask) if is_marked] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "prompt",
    ["a woman img waves", "a woman img, reading", "woman img", "a woman img.", "a  woman  img  waves"],
)
def test_one_copy_is_the_tokenization_of_the_prompt_without_its_trigger(tokenizer, prompt):
    tokens = tokenize_prompts([prompt], tokenizer, num_copies=1, max_length=12)
    clean = " ".join(prompt.replace(" img", "").split())
    expected = tokenizer(clean, padding="max_length", max_length=12, return_tensors="pt").input_ids
    assert torch.equal(tokens.ids, expected)
    assert tokens.mask.sum() == 1


def test_a_comma_after_the_trigger_leaves_no_lone_word_mark():
    words, _ = tokens_of(sentencepiece_like(), "a police officer img, reading")
    assert "\u2581" not in words
    assert words[words.index(",") - 1] == "cer"


def test_class_word_of_several_pieces_is_repeated_whole():
    words, mask = tokens_of(sentencepiece_like(), "a police officer img waves")
    assert words[2:6] == ["\u2581offi", "cer", "\u2581offi", "cer"]
    assert mask[2:6] == [True] * 4
    assert sum(mask) == 4


def test_class_of_several_words_marks_the_last_word(tokenizer):
    words, mask = tokens_of(tokenizer, "a elderly woman img waves")
    marked = [word for word, is_marked in zip(words, mask, strict=True) if is_marked]
    assert len(marked) == 2
    assert all("woman" in word for word in marked)


def test_trigger_that_was_added_to_the_tokenizer_never_reaches_the_encoder():
    tokenizer = sentencepiece_like()
    tokenizer.add_tokens(["img"], special_tokens=True)
    tokens = tokenize_prompts(["a woman img, reading"], tokenizer, num_copies=2, max_length=16)
    assert tokenizer.convert_tokens_to_ids("img") not in tokens.ids


def test_prompts_of_a_batch_are_marked_each_on_its_own(tokenizer):
    tokens = tokenize_prompts(["a woman img waves", "man img"], tokenizer, num_copies=2, max_length=9)
    assert tokens.mask[0].nonzero().flatten().tolist() == [1, 2]
    assert tokens.mask[1].nonzero().flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("a woman waves", "lacks the trigger word"),
        ("a woman imgs waves", "lacks the trigger word"),
        ("a woman img and a man img", "2 times"),
        ("img waves", "no word stands right before"),
        ("a woman, img waves", "no word stands right before"),
        ("", "lacks the trigger word"),
        ("a photo of img", 'the word before `img` is "of"'),
        ("a img waves", 'the word before `img` is "a"'),
        ("a woman img IMG waves", "holds `IMG`"),
    ],
)
def test_unusable_prompts_say_what_to_write(prompt, complaint):
    with pytest.raises(PromptError, match=complaint) as caught:
        split_prompt(prompt)
    assert "a woman img waves at the camera" in str(caught.value)


def test_too_long_prompt_counts_the_copies(tokenizer):
    tokenize_prompts(["a woman img waves"], tokenizer, num_copies=2, max_length=5)
    with pytest.raises(PromptError, match="takes 7 tokens, 3 of them") as caught:
        tokenize_prompts(["a woman img waves"], tokenizer, num_copies=4, max_length=5)
    assert "fewer references" in str(caught.value)


def test_a_text_that_does_not_fit_is_refused_with_what_does(caplog):
    tokenizer = word_level()
    tokenizer.model_max_length = 6
    check_prompt_length("a woman waves at the", tokenizer, max_length=6)
    with pytest.raises(PromptError, match="negative prompt takes 9 tokens; at most 6 fit") as caught:
        check_prompt_length("a woman, the camera, reading at", tokenizer, max_length=6, what="negative prompt")
    assert str(caught.value).endswith('This much fits: "a woman"')
    with pytest.raises(PromptError, match="at most 6 fit"):
        tokenize_without_trigger(["a woman waves at the camera"], tokenizer, max_length=6)
    assert not caplog.records  # The tokenizer's own warning would speak of indexing errors.


def test_two_people_are_bound_to_their_own_words():
    prompt = "a man img1 waves at the woman img2, reading"
    tokens = tokenize_prompts([prompt], word_level(), num_copies=[2, 3], max_length=16)
    assert tokens.person_index[0].tolist() == [0, 1, 1, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0]
    assert word_level().convert_ids_to_tokens(tokens.ids[0, :12].tolist()) == [
        "a", "man", "man", "waves", "at", "the", "woman", "woman", "woman", ",", "reading", "</s>",
    ]  # fmt: skip
    swapped = tokenize_prompts(["a woman img2 waves at the man img1"], word_level(), num_copies=[1, 1], max_length=9)
    assert swapped.person_index[0].tolist() == [0, 2, 0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("make", [sentencepiece_like, word_level])
def test_a_sentence_of_two_is_tokenized_as_without_triggers(make):
    tokenizer = make()
    tokens = tokenize_prompts(
        ["a man img1 waves, reading at the woman img2, reading"], tokenizer, num_copies=[1, 1], max_length=24
    )
    plain = tokenizer("a man waves, reading at the woman, reading").input_ids
    assert tokens.ids[0, : len(plain)].tolist() == plain


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a man img1 waves", r"has `img1` but lacks `img2`. One person alone is marked by `img`"),
        ("a man img2 waves", r"has `img2` but lacks `img1`"),
        ("a man img1 waves at a woman img3", r"has `img1`, `img3` but lacks `img2`"),
        ("a man img1 waves at a woman img1", r"`img1` 2 times"),
        ("a man img waves at a woman img2", r"mixes `img` and `img2`"),
        ("img1 waves at a woman img2", r"no word stands right before `img1`"),
        ("a man waves", r"lacks the trigger word"),
    ],
)
def test_numbers_that_do_not_fit_are_reported(prompt, message):
    with pytest.raises(PromptError, match=message):
        tokenize_prompts([prompt], word_level(), num_copies=[1, 1], max_length=24)


def test_one_person_is_expected_where_one_is():
    with pytest.raises(PromptError, match="names 2 people, but only one"):
        split_prompt("a man img1 waves at a woman img2")
