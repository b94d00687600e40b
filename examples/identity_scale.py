"""How the weight of the face changes the same video: `python examples/identity_scale.py me.jpg`."""

import sys

from likeness import Likeness
from likeness.media import contact_sheet, write_image

likeness = Likeness.load()
rows, labels = [], []
for scale in (0.0, 0.5, 1.0, 1.5):
    clip = likeness.generate("a man img talks in a kitchen", faces=sys.argv[1:2], seed=3, identity_scale=scale)
    rows.append([clip.references[0].crop, *clip.frames[::4]])
    labels.append(f"scale {scale}")
write_image("runs/identity_scale.png", contact_sheet(rows, labels))
