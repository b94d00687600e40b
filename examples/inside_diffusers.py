"""Magic Mirror on a stock diffusers pipeline: `python examples/inside_diffusers.py me.jpg`."""

import sys

import torch
from diffusers import CogVideoXPipeline

from likeness import MagicMirror
from likeness.media import write_video
from likeness.weights import CHECKPOINTS

pipe = CogVideoXPipeline.from_pretrained(CHECKPOINTS / "tiny", dtype=torch.float32)
mirror = MagicMirror.from_pretrained(CHECKPOINTS / "tiny" / "magic_mirror").attach(pipe)
with mirror.identity(sys.argv[1:2], scale=1.0):
    prompt = mirror.prompt("a woman img waves at the camera")
    video = pipe(**prompt, num_inference_steps=20, guidance_scale=4.0, output_type="np").frames[0]
write_video("runs/inside_diffusers.mp4", (video * 255).round().astype("uint8"), 8.0)
mirror.detach()  # The pipeline is the stock one again.
