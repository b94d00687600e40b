import gzip

import numpy as np
import pytest
import torch

from likeness.errors import WeightsError
from likeness.evaluation.features.networks import load
from likeness.evaluation.features.networks.inception import Inception, resize_as_tensorflow
from likeness.evaluation.features.networks.raft import Raft, correlate, enlarge, grid, look_up, pad_to_eight
from likeness.evaluation.features.networks.viclip import (
    ViClip,
    VisionEncoder,
    middle_frames,
    prepare,
    read_tokenizer,
    tokenize,
)


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_raft_has_the_published_number_of_parameters():
    assert parameters_of(Raft()) == 5_257_536


def test_raft_has_the_published_names():
    names = set(Raft().state_dict())
    assert {"cnet.layer2.0.downsample.1.running_var", "cnet.layer2.0.norm3.running_var"} <= names
    assert {
        "update_block.gru.convz1.weight",
        "update_block.encoder.convc1.weight",
        "update_block.mask.2.bias",
    } <= names
    assert not any(name.startswith("fnet") and "norm" in name for name in names)


def test_raft_gives_flow_of_the_size_of_its_pictures():
    torch.manual_seed(0)
    pictures, (left, above) = pad_to_eight(torch.rand(1, 3, 60, 67) * 255)
    assert pictures.shape == (1, 3, 64, 72)
    assert (left, above) == (2, 2)
    assert Raft().eval()(pictures, pictures, num_steps=1).shape == (1, 2, 64, 72)


def test_correlation_matches_naive_products():
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    finest = correlate(first, second)[0].view(2, 8, 8, 8, 8)
    assert finest[1, 2, 3, 5, 6] == pytest.approx(float(first[1, :, 2, 3] @ second[1, :, 5, 6] / 2), abs=1e-5)
    coarse = correlate(first, second)[1].view(2, 8, 8, 4, 4)
    assert coarse[1, 2, 3, 0, 1] == pytest.approx(float(finest[1, 2, 3, 0:2, 2:4].mean()), abs=1e-5)


def test_look_up_reads_the_window_with_x_along_its_first_axis():
    pyramid = [torch.arange(16 * 16.0).view(1, 1, 16, 16).repeat(256, 1, 1, 1)]
    found = look_up(pyramid, grid(16, 16)).view(9, 9, 16, 16)
    assert found[4, 4, 7, 5] == pytest.approx(7 * 16 + 5, abs=1e-3)
    assert found[5, 4, 7, 5] == pytest.approx(7 * 16 + 6, abs=1e-3)  # One to the right.
    assert found[4, 5, 7, 5] == pytest.approx(8 * 16 + 5, abs=1e-3)  # One down.
    assert found[0, 4, 7, 2] == 0  # Outside.


def test_enlarging_a_constant_flow_multiplies_it_by_eight():
    flow = torch.ones(1, 2, 6, 6)
    mask = torch.full((1, 9, 64, 6, 6), -1e4)
    mask[:, 4] = 0  # Only the middle of the nine counts.
    assert enlarge(flow, mask.view(1, 576, 6, 6)).eq(8).all()


def test_inception_has_the_published_number_of_parameters():
    # Inception-v3 without its classifier and side branch, and 1008 classes.
    assert parameters_of(Inception()) == 21_785_568 + 2048 * 1008 + 1008


@pytest.mark.slow
def test_inception_gives_features_and_probabilities():
    torch.manual_seed(0)
    features, probabilities = Inception().eval()(torch.rand(2, 3, 40, 50) * 255)
    assert features.shape == (2, 2048)
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1, 1])


def test_tensorflow_resizing_keeps_the_first_pixel_and_matches_loops():
    picture = torch.rand(1, 1, 5, 7)
    resized = resize_as_tensorflow(picture, 11)
    assert resized[0, 0, 0, 0] == picture[0, 0, 0, 0]
    for y, x in ((3, 4), (10, 10), (6, 1)):
        sy, sx = y * 5 / 11, x * 7 / 11
        top, left = int(sy), int(sx)
        bottom, right = min(top + 1, 4), min(left + 1, 6)
        rows = [
            picture[0, 0, row, left] * (1 - sx + left) + picture[0, 0, row, right] * (sx - left)
            for row in (top, bottom)
        ]
        assert float(resized[0, 0, y, x]) == pytest.approx(
            float(rows[0] * (1 - sy + top) + rows[1] * (sy - top)), abs=1e-6
        )


def test_viclip_has_the_published_size():
    network = ViClip(depth=1, text_depth=1)

    def whole(encoder, depth):
        return parameters_of(encoder) + (depth - 1) * parameters_of(encoder.transformer.resblocks[0])

    # CLIP L/14's vision side with eight time embeddings, its text side with 32 places, and the temperature.
    assert whole(network.vision_encoder, 24) == 303_966_208 + 8 * 1024
    assert whole(network.text_encoder, 12) == 123_650_304 - (77 - 32) * 768
    assert "text_encoder.transformer.resblocks.0.mlp.c_proj.bias" in network.state_dict()


def test_order_of_frames_matters_to_the_vision_side():
    torch.manual_seed(0)
    encoder = VisionEncoder(64, 1, 1, 8, side_px=28, patch_px=14).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    video = torch.randn(1, 3, 8, 28, 28)
    assert not torch.allclose(encoder(video), encoder(video.flip(2)), atol=1e-4)
    assert encoder(video).shape == (1, 8)


def test_middle_frames_are_those_of_equal_segments():
    assert middle_frames(16).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert middle_frames(49).tolist() == [2, 8, 14, 20, 26, 32, 38, 45]
    assert middle_frames(3).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert middle_frames(1).tolist() == [0] * 8


def test_prepared_frames_are_the_middle_of_the_picture_in_clip_colors():
    frames = np.full((8, 40, 80, 3), 128, dtype=np.uint8)
    frames[:, :, :15] = 0
    frames[:, :, 65:] = 255
    video = prepare(frames)
    assert video.shape == (1, 3, 8, 224, 224)
    assert video[0, 0].flatten().unique().tolist() == pytest.approx([(128 / 255 - 0.48145466) / 0.26862954], abs=1e-4)


@pytest.fixture
def vocabulary(tmp_path):
    """CLIP's file with three merges that mean something and the rest that never happen."""
    rare = [chr(number) for number in range(161, 324) if number != 173]
    pairs = [
        f"{first} {second}{end}" for end in ("", "</w>") for first in rare for second in rare + list("abcdefgh" * 20)
    ]
    merges = ["l o", "lo w</w>", "e r</w>", *dict.fromkeys(pairs)][: 49152 - 256 - 2]
    assert len(merges) == 49152 - 256 - 2
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(["version", *merges, "unused merge", ""]))
    return path


def test_words_are_merged_as_clip_merges_them(vocabulary):
    tokenizer = read_tokenizer(vocabulary)
    assert tokenizer.get_vocab_size() == 49408
    assert tokenizer.encode("LOW   slower", add_special_tokens=False).tokens == [
        "low</w>",
        "s",
        "lo",
        "w",
        "er</w>",
    ]
    assert (tokenizer.token_to_id("!"), tokenizer.token_to_id("!</w>"), tokenizer.token_to_id("lo")) == (
        0,
        256,
        512,
    )


def test_long_prompts_are_cut_to_32_tokens_that_end(vocabulary):
    tokenizer = read_tokenizer(vocabulary)
    short, long = tokenize(tokenizer, "low"), tokenize(tokenizer, "low " * 50)
    assert short[0, :4].tolist() == [49406, 513, 49407, 0]
    assert long.shape == (1, 32)
    assert (int(long[0, 0]), int(long[0, -1])) == (49406, 49407)
    assert torch.equal(long, tokenize(tokenizer, "low " * 90))


def test_weights_of_another_network_are_refused_with_their_names(tmp_path):
    state = dict(torch.nn.Linear(2, 2).state_dict())
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"missing[\s\S]*extra"):
        load.ready(Raft(), load.read_state(tmp_path / "other.pth"), "raft")


def test_a_file_that_is_no_torch_file_is_refused(tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"damaged\.pth is no plain file of tensors"):
        load.read_state(tmp_path / "damaged.pth")


def test_raft_loads_what_its_authors_saved(tmp_path):
    torch.manual_seed(0)
    saved = Raft()
    torch.save({f"module.{name}": tensor for name, tensor in saved.state_dict().items()}, tmp_path / "raft.pth")
    state = {name.removeprefix("module."): tensor for name, tensor in load.read_state(tmp_path / "raft.pth").items()}
    loaded = load.ready(Raft(), state, "raft")
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())
