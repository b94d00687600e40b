from dataclasses import replace

import pytest
import torch

from likeness import runtime
from likeness.errors import ConfigError, ResourceError
from likeness.runtime import (
    COGVIDEOX_2B_SIZES,
    COGVIDEOX_5B_SIZES,
    PLANS,
    ClipSize,
    choose_plan,
    next_smaller_plan,
    predict_all_plans,
    predict_peak,
)

BOTH = pytest.mark.parametrize("sizes", [COGVIDEOX_5B_SIZES, COGVIDEOX_2B_SIZES], ids=["5b", "2b"])
CARDS_GB = (6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 80, 141)


def test_auto_on_a_machine_without_gpu_is_float32_on_cpu():
    cpu = runtime.choose_device("cpu")
    assert runtime.choose_dtype("auto", cpu) is torch.float32
    assert runtime.choose_dtype("bfloat16", cpu) is torch.bfloat16


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="cuda:N"):
        runtime.choose_device("gpu please")
    with pytest.raises(ConfigError, match="float32"):
        runtime.choose_dtype("float8", torch.device("cpu"))


def test_a_device_that_is_not_there_is_a_resource_error():
    with pytest.raises(ResourceError, match="CUDA devices"):
        runtime.choose_device("cuda:99")


def test_the_machine_is_described():
    facts = runtime.describe_machine()
    assert facts["num_cores"] >= 1
    assert facts["memory_bytes"] > 0


def test_plans_of_5b_need_less_and_less_down_to_8_gb():
    peaks = [prediction.peak_bytes for prediction in predict_all_plans(COGVIDEOX_5B_SIZES)]
    assert peaks == sorted(set(peaks), reverse=True)
    assert peaks[0] < 48e9
    assert peaks[-2] < 8e9


@BOTH
def test_every_card_gets_the_fastest_plan_that_fits(sizes):
    before = len(PLANS)
    for memory_gb in CARDS_GB:
        chosen = choose_plan(memory_gb * 1e9, sizes)
        number = PLANS.index(chosen.plan)
        assert chosen.peak_bytes * 1.05 <= memory_gb * 1e9
        assert not any(other.fits(memory_gb * 1e9) for other in predict_all_plans(sizes)[:number])
        assert number <= before  # A larger GPU never gets a slower plan.
        before = number
    assert choose_plan(80e9, sizes).plan.name == "resident"
    assert {choose_plan(gb * 1e9, COGVIDEOX_5B_SIZES).plan for gb in CARDS_GB} == set(PLANS)


@BOTH
def test_a_step_down_always_needs_less(sizes):
    for prediction in predict_all_plans(sizes)[:-1]:
        smaller = next_smaller_plan(prediction, sizes)
        assert smaller is not None
        assert smaller.peak_bytes < prediction.peak_bytes
    assert next_smaller_plan(predict_all_plans(sizes)[-1], sizes) is None


def test_a_card_too_small_for_any_plan_is_reported():
    with pytest.raises(ResourceError, match=r"has 4\.0 GB; the smallest plan needs 5\.3 GB"):
        choose_plan(4e9, COGVIDEOX_5B_SIZES)


def test_predictions_reproduce_what_others_published():
    """Without the method: 2B resident 33 GB, its decoder alone 19 GB; 5B resident and tiled 24.4 GiB."""
    bare = {"method_layers": 0, "largest_method_layer": 0, "face_encoders": 0, "face_tokens": 0}
    two, five = replace(COGVIDEOX_2B_SIZES, **bare), replace(COGVIDEOX_5B_SIZES, **bare)
    assert predict_peak(PLANS[0], two).peak_bytes == pytest.approx(33e9, rel=0.05)
    alone = predict_peak(replace(PLANS[2], tiles=1), two)
    assert alone.peak_bytes == alone.decode_bytes == pytest.approx(19e9, rel=0.1)
    assert predict_peak(PLANS[1], five).peak_bytes == pytest.approx(24.4 * 2**30, rel=0.05)


def test_longer_and_larger_clips_need_more():
    small, long = ClipSize(frames=17), ClipSize(frames=97)
    wide = ClipSize(height_px=768, width_px=1360)
    for plan in PLANS:
        usual = predict_peak(plan, COGVIDEOX_5B_SIZES)
        assert predict_peak(plan, COGVIDEOX_5B_SIZES, small).denoise_bytes < usual.denoise_bytes
        assert predict_peak(plan, COGVIDEOX_5B_SIZES, long).denoise_bytes > usual.denoise_bytes
        assert predict_peak(plan, COGVIDEOX_5B_SIZES, wide).decode_bytes > usual.decode_bytes


def test_tiles_meet():
    """diffusers rounds strides in latents and joints in pixels; both have to be the same."""
    for sample_px in ((480, 720), (768, 1360), (64, 64)):
        for tiles in (2, 4):
            height, width = runtime.tile_sizes(sample_px, tiles)
            assert int(height // 8 * (1 - 1 / 6)) * 8 == height - int(height / 6)
            assert int(width // 8 * (1 - 1 / 5)) * 8 == width - int(width / 5)


@pytest.mark.parametrize(("amx", "avx512"), [(False, False), (True, False), (False, True)])
def test_training_is_in_bfloat16_only_where_the_processor_multiplies_it(monkeypatch, amx, avx512):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert runtime.choose_training_dtype("auto") == (torch.bfloat16 if amx or avx512 else torch.float32)
    assert runtime.choose_training_dtype("bfloat16") == torch.bfloat16
    with pytest.raises(ConfigError, match="`dtype` is 'int8'"):
        runtime.choose_training_dtype("int8")
