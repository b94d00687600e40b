"""A thin wrapper of onnxruntime, an optional dependency that the default engine does not need."""

from pathlib import Path

import numpy as np

from likeness.errors import ResourceError, WeightsError

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_ERRORS_ONLY = 3


class OnnxModel:
    """A network in an ONNX file with one input; it runs on the GPU if onnxruntime supports one."""

    def __init__(self, path: Path) -> None:
        """Load `path`.

        Raises:
            ResourceError: onnxruntime is not installed.
            WeightsError: onnxruntime cannot read the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ResourceError(
                "onnxruntime is not installed, and this face engine needs it. Run `pip install likeness[open]`."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        providers = [name for name in _PROVIDERS if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's errors have no common base class.
            raise WeightsError(
                f"{path} is no ONNX model that onnxruntime reads ({error}). Pull its weights again."
            ) from error
        self.input_shape: list[int | str | None] = list(self._session.get_inputs()[0].shape)
        self.output_names: list[str] = [output.name for output in self._session.get_outputs()]

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """All outputs, in the order of `output_names`."""
        feed = {self._session.get_inputs()[0].name: np.ascontiguousarray(batch, dtype=np.float32)}
        return [np.asarray(output) for output in self._session.run(self.output_names, feed)]
