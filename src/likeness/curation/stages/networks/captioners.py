"""Writes captions by a vision-language model: behind an OpenAI-compatible endpoint, or in a local folder."""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from likeness.errors import ConfigError, ResourceError

INSTRUCTION = (
    "These are frames of one video, in order. Describe it in one English sentence of at most 40 words: who the person "
    "is (a man, a woman, a boy, a girl), what they wear, what they do, how the face looks, where it is, and how the "
    "camera moves. Name the person once, by a noun. Do not mention frames or images."
)
_JPEG_QUALITY = 90
_TRIES = 3
_MAX_REPLY_BYTES = 1 << 20


class Captioner(Protocol):
    """Writes one caption for a span."""

    def __call__(self, frames: Sequence[np.ndarray]) -> str:
        """The caption of (height, width, 3) uint8 RGB frames, in their order.

        Raises:
            ResourceError: The model cannot be reached or loaded.
        """
        ...


class EndpointCaptioner:
    """Asks an endpoint that follows OpenAI's chat completions (vLLM, SGLang, llama.cpp, hosted ones).

    Args:
        base_url: As `http://localhost:8000/v1`.
        model: Name of the model there.
        key_variable: Environment variable with the key; no key is sent if it is not set.
        instruction: What the model is asked.
        max_tokens: Longest reply.
        timeout_s: For one try; there are three, with growing pauses.

    Raises:
        ConfigError: `base_url` is no http address, or `model` is empty.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str = "LIKENESS_CAPTION_KEY",
        instruction: str = INSTRUCTION,
        max_tokens: int = 120,
        timeout_s: float = 120.0,
    ) -> None:
        if not base_url.startswith(("http://", "https://")) or not model:
            raise ConfigError(
                f"`base_url` is `{base_url}` and `model` is `{model}`; captions from an endpoint need both, as "
                "`http://localhost:8000/v1` and the name of a model."
            )
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model, self._instruction, self._max_tokens = model, instruction, max_tokens
        self._key_variable, self._timeout_s = key_variable, timeout_s

    def __call__(self, frames: Sequence[np.ndarray]) -> str:
        pictures = [{"type": "image_url", "image_url": {"url": to_data_url(frame)}} for frame in frames]
        content = [{"type": "text", "text": self._instruction}, *pictures]
        reply = self._post(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": content}],
                "max_tokens": self._max_tokens,
                "temperature": 0,
                "seed": 0,
            }
        )
        try:
            return str(reply["choices"][0]["message"]["content"]).strip()
        except (KeyError, IndexError, TypeError) as error:
            raise ResourceError(
                f"{self._url} answered without a caption: {str(reply)[:200]}. Check `model`."
            ) from error

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        problem = ""
        for number in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                    return json.loads(response.read(_MAX_REPLY_BYTES))
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError) as error:
                problem = str(error)
            if number < _TRIES - 1:
                time.sleep(2**number)
        raise ResourceError(
            f"{self._url} gave no caption ({problem}). Check the address, the model's name and "
            f"`{self._key_variable}`, and start again: captions that exist are kept."
        )


class LocalCaptioner:
    """A vision-language model of transformers in a local folder; nothing is downloaded, no code of the folder runs.

    Args:
        folder: With model and processor, as `save_pretrained` writes them.
        instruction: What the model is asked.
        max_tokens: Longest reply.
    """

    def __init__(self, folder: str | Path, *, instruction: str = INSTRUCTION, max_tokens: int = 120) -> None:
        self._folder, self._instruction, self._max_tokens = Path(folder), instruction, max_tokens
        if not (self._folder / "config.json").is_file():
            raise ConfigError(
                f"{folder} has no `config.json`. Name the folder of a vision-language model of transformers, fetched "
                "beforehand."
            )

    def __call__(self, frames: Sequence[np.ndarray]) -> str:
        processor, model = self._parts
        pictures = [{"type": "image", "url": to_data_url(frame)} for frame in frames]
        messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": self._instruction}]}]
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(model.device)
        tokens = model.generate(**inputs, max_new_tokens=self._max_tokens, do_sample=False)
        return str(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(self._folder, local_files_only=True)
            model = AutoModelForImageTextToText.from_pretrained(
                self._folder, local_files_only=True, use_safetensors=True, dtype="auto", device_map="auto"
            )
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"{self._folder} cannot be loaded as a vision-language model: {str(error).splitlines()[0]}. "
                "Fetch it again, with its weights in safetensors."
            ) from error
        return processor, model.eval()


def to_data_url(frame: np.ndarray) -> str:
    """A frame as JPEG in a `data:` address."""
    pixels = np.ascontiguousarray(frame[..., ::-1])
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
