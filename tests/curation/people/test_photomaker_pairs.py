"""PhotoMaker's pictures with a random SDXL of a few thousand parameters."""

import numpy as np
import pytest
import torch
from small_photomaker import LORA, SMALL, write_published

from likeness.curation.people.photomaker_pairs import PhotoMakerPairs, encode_marked, read_lora
from likeness.errors import FaceError, PromptError, WeightsError
from likeness.identity.encoders.photomaker import PhotoMakerEncoder

pytestmark = pytest.mark.slow
PROMPT = "a woman smiling in a park"


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8, use_linear_projection=True,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4, down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",), sample_size=16,
    )  # fmt: skip
    built = StableDiffusionXLPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet, scheduler=DDIMScheduler(),
        add_watermarker=False,
    )  # fmt: skip
    built.set_progress_bar_config(disable=True)
    return built


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = PhotoMakerEncoder(SMALL.model_copy(update={"embedding_width": 3})).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@torch.no_grad()
def test_a_word_that_stands_once_is_encoded_as_diffusers_does(pipeline):
    plain, _, pooled, _ = pipeline.encode_prompt(prompt=PROMPT, device="cpu", do_classifier_free_guidance=False)
    text, own_pooled, mask = encode_marked(pipeline, PROMPT, len("a woman"), 1)
    assert torch.equal(text, plain)
    assert torch.equal(own_pooled, pooled)
    assert mask.sum() == 1
    _, _, mask = encode_marked(pipeline, PROMPT, len("a woman"), 4)
    assert mask.nonzero()[:, 1].tolist() == [6, 7, 8, 9]  # One token a letter here.


def test_pictures_follow_the_seed_the_prompt_and_the_person(pipeline, encoder, engine, squares):
    red, green = squares([[(0, 36, 36)]])[0], squares([[(1, 36, 36)]])[0]
    generate = PhotoMakerPairs(pipeline, encoder, engine, num_steps=3, size_px=16)
    facts = {"class_word": "woman:2"}
    pictures = generate([red], [PROMPT, PROMPT], seed=1, facts=facts)
    assert [picture.shape for picture in pictures] == [(16, 16, 3)] * 2
    assert pictures[0].dtype == np.uint8
    again = generate([red], [PROMPT, PROMPT], seed=1, facts=facts)
    assert np.array_equal(pictures, again)
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], generate([green], [PROMPT], seed=1, facts=facts)[0])
    with pytest.raises(FaceError, match="no face"):
        generate([np.full((32, 32, 3), 128, np.uint8)], [PROMPT], seed=1, facts=facts)
    with pytest.raises(PromptError, match="class word"):
        generate([red], ["a park"], seed=1, facts=facts)


def test_the_lora_is_read_from_the_published_file(tmp_path, encoder):
    path = write_published(encoder, tmp_path)
    assert {name: tensor.tolist() for name, tensor in read_lora(path).items()} == {
        name: tensor.tolist() for name, tensor in LORA.items()
    }
    torch.save({"id_encoder": {}}, path)
    with pytest.raises(WeightsError, match="no LoRA"):
        read_lora(path)
