import math

import pytest
import torch
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.identity.encoders.perceiver import FacePerceiver, IdentityPerceiver, LatentAttention, Resampler


def layer_norm(x, norm):
    mean, var = x.mean(), ((x - x.mean()) ** 2).mean()
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias


def naive_attention(attention, features, latents):
    """Latents attend to features and latents, head by head and query by query."""
    features = torch.stack([layer_norm(x, attention.norm1) for x in features])
    latents = torch.stack([layer_norm(x, attention.norm2) for x in latents])
    joined = torch.cat([features, latents])
    width = latents.shape[1]
    head_width = width // attention.num_heads
    outputs = []
    for latent in latents:
        heads = []
        for head in range(attention.num_heads):
            rows = slice(head * head_width, (head + 1) * head_width)
            query = attention.to_q.weight[rows] @ latent
            keys = [attention.to_kv.weight[:width][rows] @ x for x in joined]
            values = [attention.to_kv.weight[width:][rows] @ x for x in joined]
            # PhotoMaker-V2 scales query and key by head_width ** -0.25 each.
            logits = torch.stack([(query * head_width**-0.25) @ (key * head_width**-0.25) for key in keys])
            weights = torch.softmax(logits, dim=0)
            heads.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
        outputs.append(attention.to_out.weight @ torch.cat(heads))
    return torch.stack(outputs)


def naive_resampler(resampler, latents, features):
    features = torch.stack([resampler.proj_in.weight @ x + resampler.proj_in.bias for x in features])
    for attention, (norm, up, _, down) in resampler.layers:
        latents = naive_attention(attention, features, latents) + latents
        hidden = [up.weight @ layer_norm(x, norm) for x in latents]
        hidden = [x * 0.5 * (1 + torch.erf(x / math.sqrt(2))) for x in hidden]
        latents = torch.stack([down.weight @ x for x in hidden]) + latents
    projected = [resampler.proj_out.weight @ x + resampler.proj_out.bias for x in latents]
    return torch.stack([layer_norm(x, resampler.norm_out) for x in projected])


def make_resampler():
    torch.manual_seed(0)
    return Resampler(8, feature_width=6, depth=2, head_width=4).double()


def test_resampler_matches_photomaker_written_as_loops():
    resampler = make_resampler()
    latents, features = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 6).double()
    expected = torch.stack([naive_resampler(resampler, *row) for row in zip(latents, features, strict=True)])
    assert_close(resampler(latents, features), expected, rtol=1e-12, atol=1e-12)


def test_identity_perceiver_is_equation_4_with_the_recognizer_as_query():
    torch.manual_seed(0)
    perceiver = IdentityPerceiver(8, embedding_width=5, feature_width=6, depth=1, head_width=4).double()
    embedding, features = torch.randn(2, 5).double(), torch.randn(2, 7, 6).double()
    rows = []
    for q, f in zip(embedding, features, strict=True):
        first, _, second = perceiver.token_proj
        hidden = first.weight @ q + first.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        projected = second.weight @ hidden + second.bias
        query = torch.stack([layer_norm(projected[:8], perceiver.token_norm),
                             layer_norm(projected[8:], perceiver.token_norm)])  # fmt: skip
        rows.append(query + naive_resampler(perceiver.perceiver_resampler, query, f))
    assert_close(perceiver(embedding, features), torch.stack(rows), rtol=1e-12, atol=1e-12)


def test_face_perceiver_is_equation_3_with_learned_queries():
    torch.manual_seed(0)
    perceiver = FacePerceiver(8, output_width=10, feature_width=6, depth=1, head_width=4, num_tokens=3).double()
    features = torch.randn(2, 7, 6).double()
    rows = [naive_resampler(perceiver.resampler, perceiver.query, f) for f in features]
    expected = torch.stack([row @ perceiver.project.weight.T + perceiver.project.bias for row in rows])
    assert_close(perceiver(features), expected, rtol=1e-12, atol=1e-12)


def test_order_of_references_does_not_matter_to_the_face_perceiver():
    torch.manual_seed(0)
    perceiver = FacePerceiver(8, output_width=10, feature_width=6, depth=2, head_width=4)
    first, second = torch.randn(1, 7, 6), torch.randn(1, 7, 6)
    assert_close(perceiver(torch.cat([first, second], 1)), perceiver(torch.cat([second, first], 1)))


def test_names_and_sizes_are_those_of_photomaker_v2():
    with torch.device("meta"):
        perceiver = IdentityPerceiver(
            2048, embedding_width=512, feature_width=1024, depth=4, head_width=128, num_tokens=2
        )
    assert sum(parameter.numel() for parameter in perceiver.parameters()) == 217_122_816
    names = perceiver.state_dict().keys()
    assert {"token_proj.0.weight", "token_proj.2.bias", "token_norm.weight"} <= names
    resampler = "perceiver_resampler."
    assert {resampler + name for name in ("proj_in.bias", "layers.3.0.to_kv.weight", "layers.0.1.1.weight")} <= names


def test_head_width_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="does not divide"):
        LatentAttention(10, 4)
