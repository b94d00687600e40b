import torch

from likeness.backbones import tiny
from likeness.identity.encoders.recognizer import Recognizer, align
from likeness.training.base.vae import VaeStage, VaeStageSettings
from likeness.training.data.datasets import ShardedDataset


def make_stage(**changes) -> VaeStage:
    torch.manual_seed(0)
    vae = tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=4))
    points = torch.tensor([[22.0, 30], [28, 30], [36, 30], [42, 30], [32, 38]])

    def shards(frames: int) -> ShardedDataset:
        tensors = {
            "frames": torch.randint(256, (4, frames, 64, 64, 3), dtype=torch.uint8),
            "mask": torch.randint(256, (4, frames, 64, 8), dtype=torch.uint8),
            "landmarks": points.expand(4, frames, 5, 2),
        }
        return ShardedDataset(tensors, [{}] * 4)

    data = {"images": shards(1), "clips": shards(9), "validation": shards(17)}
    values = {"name": "s", "steps": 1, "batch": 2, "data": "clips", **changes}
    return VaeStage(vae, VaeStageSettings(**values), data, 0, Recognizer(8, (4, 4, 4), 32).requires_grad_(False))


def test_a_decoder_stage_leaves_the_encoder_alone():
    stage = make_stage(learns="decoder", loss={"identity": 0.1})
    loss, figures = stage.loss(0)
    loss.backward()
    assert figures["identity"] > 0
    assert all(p.grad is None for p in stage.vae.encoder.parameters())
    assert any(p.grad is not None for p in stage.vae.decoder.parameters())


def test_a_sheet_reports_psnr(tmp_path):
    figures = make_stage(data="images").validate(tmp_path / "sheet.png")
    assert 0 < figures["psnr_db"] < 20


def test_align_puts_landmarks_where_dlib_does():
    # A picture of its own coordinates shows where each place of the crop came from.
    places = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"))[None]
    points = torch.tensor([[[20.0, 28], [27, 30], [38, 32], [45, 34], [31, 44]]])
    crop = align(places, points, 96)[0]
    middle = crop[:, 33:35, 47:49].mean(dim=(1, 2))
    assert (middle - torch.tensor([32.0, 33.0])).abs().max() < 5
    turned = align(places, points + torch.tensor([3.0, -2.0]), 96)[0]
    assert torch.allclose(turned[:, 48, 48] - crop[:, 48, 48], torch.tensor([3.0, -2.0]), atol=1e-3)
