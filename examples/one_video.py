"""One video of the person in a picture: `python examples/one_video.py me.jpg`."""

import sys

from likeness import Likeness

likeness = Likeness.load()
clip = likeness.generate("a woman img smiles at the camera in a park", faces=sys.argv[1:2], seed=7)
clip.save("runs/one_video.mp4")
print(f"cosine {clip.similarity.mean:.3f}, a face in {clip.similarity.face_rate:.0%} of frames")
