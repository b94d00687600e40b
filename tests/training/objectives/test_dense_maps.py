import numpy as np
import pytest
import torch

from likeness.backbones import tiny
from likeness.errors import ConfigError
from likeness.puppets.rendering.maps import CHANNELS
from likeness.training.base import transformer
from likeness.training.data.datasets import ShardedDataset
from likeness.training.objectives import diffusion
from likeness.training.objectives.dense_maps import DenseMapHead, VideoTokenHook

SENTENCES = ["a man nods", "a woman nods"]


@pytest.fixture
def pipe():
    torch.manual_seed(0)
    tokenizer = tiny.build_tokenizer(SENTENCES)
    text = tiny.TextSettings(width=32, num_heads=2, hidden_width=32, num_layers=1)
    settings = tiny.TransformerSettings(num_heads=2, head_width=16, num_layers=2, time_width=16, patch_size=1)
    return tiny.build_pipeline(
        None, tiny.build_text_encoder(text, tokenizer), tokenizer, tiny.build_transformer(settings, text)
    )


def shards(frames, count=6):
    torch.manual_seed(1)
    maps = torch.zeros(count, frames, len(CHANNELS), 16, 16, dtype=torch.uint8)
    maps[:, :, 0, 4:12, 4:12] = 255
    latents = torch.randn(count, frames, 16, 8, 8)
    latents[..., 2:6, 2:6] += 3  # What the maps show can be seen in the latents.
    tensors = {"latents": latents.half(), "mask": torch.ones(count, frames, 8, 8).half(), "maps": maps}
    return ShardedDataset(tensors, [{"prompt": SENTENCES[row % 2]} for row in range(count)])


def stage(pipe, head, **settings):
    data = {"images": shards(1), "clips": shards(5), "validation": shards(5), "validation_images": shards(1)}
    head.fit_standardization(data["images"]["maps"])
    settings = {"map_weight": 0.5, "map_layer": 0, "long_text_every": 0, **settings}
    return transformer.BaseStage(
        pipe, transformer.BaseStageSettings(name="s", steps=1, batch=4, **settings), data, seed=0, head=head
    )


def test_a_block_learns_what_is_where(pipe):
    head = DenseMapHead(32, 1)
    one = stage(pipe, head, data="images", timesteps="log_snr_normal", log_snr_mean=4.0)
    parameters = [p for module in one.modules.values() for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    errors = []
    for step in range(20):
        loss, figures = one.loss(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(figures["map_loss"])
    assert np.mean(errors[-5:]) < 0.5 * errors[0]


def test_the_head_reaches_the_block_before_it_and_none_after(pipe):
    one = stage(pipe, DenseMapHead(32, 1), data="images")
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    clean, ids = one.data["images"]["latents"][:2].float(), one.token_ids["images"][:2]
    one._squared_error(clean, ids, torch.tensor([10, 20]))
    one.cast_map_head(one.token_hook.pop_tokens(), 1).square().mean().backward()
    first, second = pipe.transformer.transformer_blocks
    assert all(p.grad is not None for p in first.ff.parameters())
    assert all(p.grad is None for p in second.parameters())


def test_a_map_lies_where_its_token_does():
    head, tokens = DenseMapHead(8, 1), torch.zeros(1, 2 * 64, 8)
    tokens[0, 64 + 8 * 3 + 5] = torch.randn(8)  # Second frame, row 3, column 5.
    seen = head(tokens, 2) - head(torch.zeros_like(tokens), 2)
    frames, _, rows, columns = seen[0].nonzero(as_tuple=True)
    assert set(frames.tolist()) == {1}
    assert set(rows.tolist()) == {6, 7}
    assert set(columns.tolist()) == {10, 11}


def test_frames_of_a_clip_keep_their_places_in_time(pipe):
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    noisy, text, steps = torch.randn(1, 5, 16, 8, 8), torch.randn(1, 4, 32), torch.tensor([500])
    whole = diffusion.predict_velocity(pipe.transformer, noisy, text, steps)
    assert torch.equal(whole, diffusion.predict_velocity(pipe.transformer, noisy, text, steps, range(5)))
    pair = noisy[:, [1, 3]]
    first, later = (diffusion.predict_velocity(pipe.transformer, pair, text, steps, at) for at in ([0, 1], [1, 3]))
    assert torch.equal(first, diffusion.predict_velocity(pipe.transformer, pair, text, steps))
    assert (first - later).abs().max() > 1e-3


def test_steps_see_so_many_latent_frames_as_they_should(pipe):
    one = stage(pipe, DenseMapHead(32, 1), data="clips", latent_frames=(1, 3))
    seen = []
    pipe.transformer.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[1].shape[:2])))
    for step in range(12):
        one.loss(step)
    assert set(seen) == {(20, 1), (8, 3)}


def test_signal_over_noise_is_drawn_as_wanted():
    alphas_cumprod = tiny.build_scheduler(0.4).alphas_cumprod.float()
    settings = diffusion.DiffusionStageSettings(
        name="s", steps=1, data="images", timesteps="log_snr_normal", log_snr_mean=1.0, log_snr_std=0.5
    )
    torch.manual_seed(0)
    timesteps = diffusion.sample_timesteps(4000, settings, alphas_cumprod)
    drawn = (alphas_cumprod[timesteps] / (1 - alphas_cumprod[timesteps])).log()
    assert float(drawn.median()) == pytest.approx(1.0, abs=0.1)
    assert timesteps.max() > 950  # The uniform share.


def test_a_shifted_schedule_ends_in_pure_noise_too():
    assert tiny.build_scheduler(0.4).alphas_cumprod[-1] == 0


def test_a_block_that_is_not_there_is_refused():
    settings = {"kind": "images", "count": 1, "people": 1}
    recipe = transformer.BaseRecipe(
        kind="base", vae="vae", images=settings, clips=settings, validation=settings,
        stages=[{"name": "s", "data": "images", "steps": 1, "map_weight": 1.0, "map_layer": 6}],
    )  # fmt: skip
    with pytest.raises(ConfigError, match="map_layer = 6"):
        transformer.build_map_head(recipe, {"images": shards(1)})


def test_tokens_are_forgotten_when_taken(pipe):
    tokens = VideoTokenHook(pipe.transformer.transformer_blocks[0])
    diffusion.predict_velocity(pipe.transformer, torch.randn(1, 1, 16, 8, 8), torch.randn(1, 4, 32), torch.tensor([5]))
    assert tokens.pop_tokens().shape == (1, 64, 32)
    assert tokens.tokens is None
