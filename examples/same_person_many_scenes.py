"""One person in several scenes, as one batch, on one page: `python examples/same_person_many_scenes.py me.jpg`."""

import sys
from pathlib import Path

from likeness import Likeness, read_face
from likeness.app.demo import write_demo
from likeness.generation import GenerationRequest

face = read_face(sys.argv[1])
scenes = ("smiles in a park", "nods on a beach", "turns left in a library")
requests = [GenerationRequest(prompt=f"a woman img {scene}", people=((face,),), seed=7) for scene in scenes]
clips = Likeness.load().generate_many(requests)
write_demo(Path("runs/scenes"), clips, ["One person"] * len(clips))
print("Open runs/scenes/report.html in a browser.")
