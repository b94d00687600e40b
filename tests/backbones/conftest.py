"""The tokenizer that the hub holds, with a model trained here, and a text encoder for it."""

import json

import pytest
import sentencepiece

TEXT = "a woman img smiles in the park while the sun sets behind her and the wind moves the trees"
EXTRA = [f"<extra_id_{number}>" for number in range(100)]
CONFIG = {
    "additional_special_tokens": EXTRA,
    "clean_up_tokenization_spaces": True,
    "eos_token": "</s>",
    "extra_ids": 100,
    "legacy": True,
    "model_max_length": 226,
    "pad_token": "<pad>",
    "sp_model_kwargs": {},
    "tokenizer_class": "T5Tokenizer",
    "unk_token": "<unk>",
}


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """What the hub holds of T5's tokenizer, with a model trained here."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "words.txt").write_text("\n".join([TEXT] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "words.txt").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    special = {
        "additional_special_tokens": EXTRA,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder


@pytest.fixture(scope="session")
def text_encoder():
    """T5 at small size, with a table for the tokenizer's words and its extra ids."""
    import torch
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(1)
    config = T5Config(
        vocab_size=256, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config)
