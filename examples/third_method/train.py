"""Train the method of face_tokens.py for a minute, and make a video: `python examples/third_method/train.py`."""

import json
import sys
from pathlib import Path

from face_tokens import FaceTokens, FaceTokensTrainingSpec

from likeness import Likeness, config, read_face
from likeness.puppets import sample_image, sample_person
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.train import train_method
from likeness.weights import CHECKPOINTS


def main() -> None:
    tiny = CHECKPOINTS / "tiny"
    changes = [f"base={json.dumps(str(tiny))}", f"recognizer={json.dumps(str(tiny / 'recognizer'))}"]
    recipe = config.read(MethodRecipe, Path(__file__).with_name("recipe.toml"), [*changes, *sys.argv[1:]])
    folder = train_method(recipe, Path("runs/face_tokens"), Path("runs/cache"), FaceTokensTrainingSpec())

    person = sample_person(11, "man")
    portrait = sample_image(11, person=person, size_px=256, max_yaw_deg=5).frames[0]
    likeness = Likeness.load(method=FaceTokens, adapter=folder)
    clip = likeness.generate("a man img smiles at the camera in a park", faces=read_face(portrait), seed=7)
    clip.save("runs/face_tokens.mp4")
    print(f"runs/face_tokens.mp4, made by {clip.settings['method']}")


if __name__ == "__main__":  # Puppets are drawn by processes of their own, which read this file too.
    main()
