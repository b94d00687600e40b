"""The engines `research` and `open`: detector and recognizer in ONNX files, run by onnxruntime.

`research` runs InsightFace's models as InsightFace does, without its package. Their licence allows non-commercial
research only. `open` runs YuNet with AuraFace or SFace, which may be used commercially.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from likeness.errors import WeightsError
from likeness.faces.engines.base import DetectionPass
from likeness.faces.engines.detectors import DETECTOR_INPUT_PX, Detector, Scrfd, YuNet
from likeness.faces.engines.onnx_session import OnnxModel
from likeness.faces.geometry.align import fit_similarity, warp
from likeness.faces.geometry.layouts import EYE_CENTERS, refuse_other_layout
from likeness.records import Detection, EmbeddingMetric
from likeness.weights import locate

CHIP_PX = 112
CHIP_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Landmarks of an aligned face for ArcFace and SFace: eye centers, tip of the nose, corners of the mouth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Models and constants of an engine."""

    detector: type[Detector]
    detector_file: tuple[str, str]
    """Name in `likeness.weights`, and file name."""
    recognizer_file: tuple[str, str]
    embedding_width: int
    pixel_mean: float
    """Subtracted from the recognizer's input pixels (0 to 255, RGB)."""
    pixel_scale: float
    """Divisor of the result."""
    min_cosine: float
    """Two faces with at least this cosine similarity count as one person."""


def _arcface_spec(detector: type[Detector], detector_file: tuple[str, str], recognizer: tuple[str, str]) -> EngineSpec:
    # 0.4 is the default threshold of InsightFace 2.1's face comparison. AuraFace publishes none; it has the same
    # network and loss, so the same value is used, uncalibrated.
    return EngineSpec(
        detector=detector,
        detector_file=detector_file,
        recognizer_file=recognizer,
        embedding_width=512,
        pixel_mean=127.5,
        pixel_scale=127.5,
        min_cosine=0.4,
    )


_YUNET_FILE = ("yunet", "face_detection_yunet_2023mar.onnx")
ENGINE_SPECS = {
    "research/buffalo_l": _arcface_spec(Scrfd, ("buffalo_l", "det_10g.onnx"), ("buffalo_l", "w600k_r50.onnx")),
    "research/antelopev2": _arcface_spec(
        Scrfd, ("antelopev2", "scrfd_10g_bnkps.onnx"), ("antelopev2", "glintr100.onnx")
    ),
    "open/auraface": _arcface_spec(YuNet, _YUNET_FILE, ("auraface", "glintr100.onnx")),
    "open/sface": EngineSpec(
        detector=YuNet,
        detector_file=_YUNET_FILE,
        recognizer_file=("sface", "face_recognition_sface_2021dec.onnx"),
        embedding_width=128,
        # The graph contains the normalization.
        pixel_mean=0.0,
        pixel_scale=1.0,
        # OpenCV's threshold, calibrated on LFW (99.60 %); as a distance of unit embeddings it is 1.128.
        min_cosine=0.363,
    ),
}


class OnnxEngine:
    """Detector and recognizer behind the `FaceEngine` protocol; files are opened at first use."""

    metric: EmbeddingMetric = "cosine"
    layout = EYE_CENTERS
    # The second pass finds faces that fill the input: the detectors were trained on smaller ones.
    detection_passes = (
        DetectionPass(DETECTOR_INPUT_PX, max_scale=4.0),
        DetectionPass(DETECTOR_INPUT_PX // 2, max_scale=2.0),
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self._spec = ENGINE_SPECS[name]
        self.embedding_width = self._spec.embedding_width
        self.threshold = float(np.sqrt(2 - 2 * self._spec.min_cosine))
        self.min_score = self._spec.detector.min_score

    def detect(self, picture: np.ndarray) -> list[Detection]:
        return self._detector.detect(picture)

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The recognizer's output, not normalized, because adapters are trained on raw embeddings."""
        refuse_other_layout(landmarks, self.layout)
        chip = warp(picture, fit_similarity(landmarks, CHIP_POINTS), CHIP_PX, fill=0)
        batch = ((chip.astype(np.float32) - self._spec.pixel_mean) / self._spec.pixel_scale).transpose(2, 0, 1)[None]
        (embedding,) = self._recognizer.run(batch)
        if embedding.size != self.embedding_width:
            raise WeightsError(
                f"{self._files[1]} gives {embedding.size} numbers for a face; `{self.name}` needs "
                f"{self.embedding_width}. Pull its weights again."
            )
        return np.asarray(embedding, dtype=np.float32).reshape(-1)

    @cached_property
    def _files(self) -> tuple[Path, Path]:
        """Paths of detector and recognizer; one error lists everything that is missing."""
        required = (self._spec.detector_file, self._spec.recognizer_file)
        located, problems = {}, []
        for weights in dict.fromkeys(name for name, _ in required):
            try:
                located[weights] = locate(weights)
            except WeightsError as error:
                problems.append(str(error))
        if problems:
            raise WeightsError(f"The face engine `{self.name}` lacks weights.\n" + "\n".join(problems))
        detector, recognizer = (
            located[name] / file if located[name].is_dir() else located[name] for name, file in required
        )
        return detector, recognizer

    @cached_property
    def _detector(self) -> Detector:
        return self._spec.detector(self._files[0])

    @cached_property
    def _recognizer(self) -> OnnxModel:
        return OnnxModel(self._files[1])
