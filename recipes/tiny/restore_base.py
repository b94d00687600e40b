"""Restores the unfinished base of `base_next.toml`, so that its training can go on from the packed weights.

    python recipes/tiny/restore_base.py
    likeness train recipes/tiny/base_next.toml --set start=recipes/tiny/base_clips

`base_clips/` has averaged weights after the steps that its README names (matrices in float8) and what whitening
changed in the VAE that ships. This script writes the white VAE to `runs/vae_white/model/vae`, where the recipe reads
it.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from likeness import files, weights
from likeness.training.base.pipelines import read_vae

PACKED = Path(__file__).parent / "base_clips"
TARGET = Path("runs/vae_white/model/vae")


def main() -> None:
    vae = read_vae(weights.CHECKPOINTS / "tiny" / "vae")
    changed = load_file(PACKED / "white_vae.safetensors")
    state = vae.state_dict()
    unknown = sorted(changed.keys() - state.keys())
    if unknown:
        raise SystemExit(f"{PACKED} has tensors that the VAE does not: {unknown[0]}. Restore both from one version.")
    vae.load_state_dict({name: changed.get(name, value).to(torch.float32) for name, value in state.items()})
    vae.register_to_config(scaling_factor=1.0)
    with files.write_atomically(TARGET, replaces_folder=True) as draft:
        vae.half().save_pretrained(draft)
    print(TARGET)


if __name__ == "__main__":
    main()
