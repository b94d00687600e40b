"""The table of weights that do not ship: purpose, source, licence, files.

Checksums are those stated by a publisher or by several independent projects. If none is known, `pull` uses the hub's
own checksums, checks the download against them and stores them beside the files.
"""

from pathlib import Path

from likeness.weights.records import HubSource, LicencePreset, UrlSource, WeightEntry, WeightFile, ZipSource

COGVIDEOX_LICENCE = "CogVideoX License (research free of charge; commercial use needs registration)"
INSIGHTFACE_LICENCE = "InsightFace models: non-commercial research only"

_INSIGHTFACE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_OPENCV_ZOO = "https://github.com/opencv/opencv_zoo/raw/47534e27c9851bb1128ccc0102f1145e27f23f98/models"


def _file(path: str, sha256: str | None = None, size_bytes: int | None = None) -> WeightFile:
    return WeightFile(path=Path(path), sha256=sha256, size_bytes=size_bytes)


_SCRFD_SHA256 = "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
_PACK_FILES = (
    # These three are identical in both packs.
    _file("1k3d68.onnx", "df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc", 143_607_619),
    _file("2d106det.onnx", "f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf", 5_030_888),
    _file("genderage.onnx", "4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb", 1_322_532),
)
_PIPELINE_FILES = tuple(
    _file(path)
    for path in (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/spiece.model",
        "tokenizer/tokenizer_config.json",
        "transformer/config.json",
        "vae/config.json",
    )
)


def _cogvideox(
    name: str, repository: str, revision: str, parameters: int, *, preset: LicencePreset, licence: str
) -> WeightEntry:
    """A diffusers folder: transformer, T5-XXL encoder (4.762 B parameters), VAE (0.216 B), tokenizer, scheduler."""
    return WeightEntry(
        name=name,
        purpose="video backbone",
        preset=preset,
        licence=licence,
        source=HubSource(repository=repository, revision=revision, patterns=("model_index.json", "LICENSE*", "*/*")),
        files=_PIPELINE_FILES,
        components=(
            "text_encoder/model",
            "transformer/diffusion_pytorch_model",
            "vae/diffusion_pytorch_model",
        ),
        estimated_bytes=2 * (parameters + 4_762_310_656 + 215_583_907),
    )


_ALL = (
    _cogvideox(
        "cogvideox-5b",
        "zai-org/CogVideoX-5b",
        "8d6ea3f817438460b25595a120f109b88d5fdfad",
        5_570_283_072,
        preset="research",
        licence=COGVIDEOX_LICENCE,
    ),
    _cogvideox(
        "cogvideox-2b",
        "zai-org/CogVideoX-2b",
        "1137dacfc2c9c012bed6a0793f4ecf2ca8e7ba01",
        1_693_783_872,
        preset="open",
        licence="Apache-2.0",
    ),
    _cogvideox(
        "cogvideox1.5-5b",
        "zai-org/CogVideoX1.5-5B",
        "main",
        5_570_676_352,
        preset="research",
        licence=COGVIDEOX_LICENCE,
    ),
    WeightEntry(
        name="photomaker-v2",
        purpose="identity encoder of Magic Mirror at 5B",
        # The weights are Apache-2.0, but need the InsightFace embeddings that they were trained on.
        preset="research",
        licence="Apache-2.0; trained on InsightFace's buffalo_l embeddings, which are non-commercial",
        source=HubSource(repository="TencentARC/PhotoMaker-V2", revision="f5a1e5155dc02166253fa7e29d13519f5ba22eac"),
        files=(_file("photomaker-v2.bin", "0eeac57d7e09b95cee670a18e0d939ff303dd6f76d317c950bf584c6c9bdb8f5"),),
        estimated_bytes=1_800_000_000,
    ),
    WeightEntry(
        name="antelopev2",
        purpose="face engine `research/antelopev2`: SCRFD-10GF and ArcFace R100 (Glint360K)",
        preset="research",
        licence=INSIGHTFACE_LICENCE,
        source=ZipSource(
            url=f"{_INSIGHTFACE}/antelopev2.zip",
            sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
            size_bytes=360_662_982,
        ),
        files=(
            *_PACK_FILES,
            _file("scrfd_10g_bnkps.onnx", _SCRFD_SHA256, 16_923_827),
            _file(
                "glintr100.onnx",
                "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
                260_665_334,
            ),
        ),
    ),
    WeightEntry(
        name="buffalo_l",
        purpose="face engine `research`: SCRFD-10GF and ArcFace R50 (WebFace600K), as PhotoMaker-V2 uses",
        preset="research",
        licence=INSIGHTFACE_LICENCE,
        source=ZipSource(
            url=f"{_INSIGHTFACE}/buffalo_l.zip",
            sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
            size_bytes=288_621_354,
        ),
        files=(
            *_PACK_FILES,
            _file("det_10g.onnx", _SCRFD_SHA256, 16_923_827),
            _file(
                "w600k_r50.onnx",
                "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
                174_383_860,
            ),
        ),
    ),
    WeightEntry(
        name="auraface",
        purpose="face recognizer of the preset `open` (ArcFace R100)",
        preset="open",
        licence="Apache-2.0",
        # One file of five: the other four in that repository are identical to InsightFace's.
        source=HubSource(repository="fal/AuraFace-v1", revision="af6d057c9b0ec4071d4c49c80e3539258798b609"),
        files=(
            _file(
                "glintr100.onnx",
                "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60",
                260_694_151,
            ),
        ),
    ),
    WeightEntry(
        name="sface",
        purpose="light face recognizer of the preset `open`",
        preset="open",
        licence="Apache-2.0",
        source=UrlSource(url=f"{_OPENCV_ZOO}/face_recognition_sface/face_recognition_sface_2021dec.onnx"),
        files=(
            _file(
                "face_recognition_sface_2021dec.onnx",
                "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
                38_696_353,
            ),
        ),
    ),
    WeightEntry(
        name="yunet",
        purpose="face detector of the preset `open`",
        preset="open",
        licence="MIT",
        source=UrlSource(url=f"{_OPENCV_ZOO}/face_detection_yunet/face_detection_yunet_2023mar.onnx"),
        files=(
            _file(
                "face_detection_yunet_2023mar.onnx",
                "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
                232_589,
            ),
        ),
    ),
    WeightEntry(
        name="taecvx",
        purpose="small video decoder for previews and the identity loss",
        preset="open",
        licence="MIT",
        source=UrlSource(
            url="https://github.com/madebyollin/taehv/raw/1f14a568f24bf8811e0a0ac601613e04fc1581e8/"
            "safetensors/taecvx.safetensors"
        ),
        files=(WeightFile(path=Path("taecvx.safetensors"), git_sha1="64e2fd755c9356db4c5c1e24d4a67135640a1085"),),
        estimated_bytes=19_600_000,
    ),
    WeightEntry(
        name="raft",
        purpose="optical flow for the metric dynamic degree",
        preset="research",
        licence="BSD-3-Clause code; trained on FlyingChairs and FlyingThings3D, which are for research",
        source=ZipSource(url="https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip"),
        files=(
            _file(
                "raft-things.pth",
                "fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",
                21_108_000,
            ),
        ),
    ),
    WeightEntry(
        name="viclip",
        purpose="text alignment, the metric overall consistency",
        preset="research",
        licence="not stated with the file; trained on InternVid, which is non-commercial",
        source=HubSource(repository="OpenGVLab/VBench_Used_Models"),
        files=(_file("ViClip-InternVid-10M-FLT.pth"),),
        estimated_bytes=1_700_000_000,
    ),
    WeightEntry(
        name="clip-vocabulary",
        purpose="CLIP's vocabulary, for the prompts of the metric overall consistency",
        preset="open",
        licence="MIT",
        source=UrlSource(url="https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz"),
        files=(
            _file(
                "bpe_simple_vocab_16e6.txt.gz",
                "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
                1_356_917,
            ),
        ),
    ),
    WeightEntry(
        name="inception",
        purpose="Inception-v3 for the metrics IS and FID",
        preset="open",
        licence="Apache-2.0",
        source=UrlSource(
            url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth"
        ),
        files=(
            _file(
                "weights-inception-2015-12-05-6726825d.pth",
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                95_628_359,
            ),
        ),
    ),
    WeightEntry(
        name="fantasyid",
        purpose="released FantasyID: image-to-video base, identity layers, image encoder",
        preset="research",
        licence="Apache-2.0 stated; derived from CogVideoX-5B-I2V and from FLAME and CVTHead data: research",
        source=HubSource(repository="acvlab/FantasyID", patterns=("*",)),
        # The loader chooses between `transformer_ema` and `transformer`.
        files=tuple(
            _file(path)
            for path in (
                "model_index.json",
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "vae/config.json",
            )
        ),
        needs=("fantasyid-mesh",),
    ),
    WeightEntry(
        name="fantasyid-mesh",
        purpose="mesh of the released FantasyID: FLAME's head at several levels",
        preset="research",
        licence="FLAME (Max Planck): non-commercial research only; published without a licence of its own",
        source=UrlSource(
            url="https://github.com/Fantasy-AMAP/fantasy-id/raw/c4290929b77ae2fd838440e1a4004331abfd8705/"
            "assets/transform.pkl"
        ),
        files=(_file("transform.pkl", "e8dcbc25e8c22fd35b9465c5bdee4c474d08c69047b17ee22dbd01c4858a212e", 873_404),),
    ),
    WeightEntry(
        name="eva02-clip-l-336",
        purpose="image encoder of the released FantasyID, if its folder lacks it",
        preset="open",
        licence="MIT",
        source=HubSource(repository="QuanSun/EVA-CLIP"),
        files=(_file("EVA02_CLIP_L_336_psz14_s6B.pt"),),
        estimated_bytes=856_000_000,
    ),
)

MODELS: dict[str, WeightEntry] = {entry.name: entry for entry in _ALL}
"""All weights that `likeness models pull` can fetch, by name; `likeness.weights.entry` adds local paths."""
