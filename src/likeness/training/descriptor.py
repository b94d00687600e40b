"""Teaches FantasyID's descriptor to read a person before it is used in any video.

The paper's descriptor begins with an encoder that knows faces, this one at best with Magic Mirror's, and the video
transformer is a poor teacher of what a face is. Here a linear layer, thrown away later, has to tell from V_F what is known of a
puppet: its identity numbers, its colors, and a face recognizer's embedding. No sentence, latent or transformer takes part,
so a minute of it sees several times as many people as a minute of the image stage.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness import media
from likeness.training.data import Order, Shards, jittered, to_pixels
from likeness.training.lessons import Lesson
from likeness.training.loop import LoopSettings
from likeness.training.render import PuppetSettings, person_of


class DescriptorSettings(LoopSettings):
    """The stage before the image stage."""

    name: str = "descriptor"
    batch: int = 96


class DescriptorStage:
    """From pictures and vertices to what is known of a person."""

    def __init__(
        self,
        descriptor: nn.Module,
        lesson: Lesson,
        settings: DescriptorSettings,
        data: dict[str, Any],
        known: dict[str, Tensor],
        seed: int,
    ) -> None:
        """Prepare the stage.

        Args:
            descriptor: What is trained.
            lesson: What gives vertices and looks.
            settings: How long and how.
            data: The sets `faces` and `unseen`.
            known: What is known of the person of each row of both, (rows, numbers).
            seed: Of the order of people.
        """
        self.descriptor, self.lesson, self.settings, self.data = descriptor, lesson, settings, data
        mean, spread = known["faces"].mean(dim=0), known["faces"].std(dim=0).clamp(min=1e-6)
        self.wanted = {name: (rows - mean) / spread for name, rows in known.items()}
        self.reader = nn.LazyLinear(len(mean))
        self.looks = [torch.tensor(rows) for rows in lesson.looks(data).values()]
        self.unseen = torch.tensor([rows[0] for rows in data["unseen"].rows_of("person").values()])
        with torch.no_grad():
            self.read("unseen", self.unseen[:1])  # Gives the reader its width.
        self.modules: dict[str, nn.Module] = {"descriptor": descriptor, "reader": self.reader}
        self.order = Order(len(self.looks), seed)

    def read(self, source: str, rows: Tensor, *, jitter: bool = False) -> Tensor:
        """What the reader tells of one picture each, (batch, numbers), from V_F normed as injections norm it."""
        crops = self.data[source]["crop"]
        pixels = jittered(crops, rows[:, None]) if jitter else to_pixels(crops[rows])
        tokens = self.descriptor(pixels, self.lesson.traits(self.data, source, rows[:, None]))
        return self.reader(F.layer_norm(tokens, tokens.shape[-1:]).mean(dim=1))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        people = [self.looks[i] for i in self.order.rows(step, self.settings.batch).tolist()]
        rows = torch.stack([looks[torch.randint(len(looks), ())] for looks in people])
        error = F.mse_loss(self.read("faces", rows, jitter=True), self.wanted["faces"][rows])
        return error, {"unexplained": float(error.detach())}

    @torch.no_grad()
    def sheet(self, path: Path) -> dict[str, float]:
        """How alike unseen people are: by what is known on the left, by what is read on the right, white for the same."""
        wanted = self.wanted["unseen"][self.unseen]
        read = torch.cat([self.read("unseen", rows) for rows in self.unseen.split(32)])
        gray = ((torch.cat([cosines(wanted[:64]), cosines(read[:64])], dim=1) + 1) * 127.5).byte().numpy()
        media.write_picture(path, np.kron(np.stack([gray] * 3, axis=-1), np.ones((6, 6, 1), dtype=np.uint8)))
        return {"unseen_r2": float(1 - (read - wanted).square().sum() / wanted.square().sum())}


def known_of_puppets(settings: PuppetSettings, faces: Shards) -> Tensor:
    """For each row what is known of its person, (rows, numbers): identity numbers, colors of skin and hair, mean embedding."""
    embeddings = faces["embedding"].float()
    known = []
    for person, rows in faces.rows_of("person").items():
        puppet = person_of(settings, person)
        truth = np.concatenate([puppet.numbers, puppet.skin, puppet.hair_color])
        own = torch.cat([torch.from_numpy(truth).float(), embeddings[rows].mean(dim=0)])
        known += [(row, own) for row in rows]
    return torch.stack([own for _, own in sorted(known, key=lambda pair: pair[0])])


def cosines(rows: Tensor) -> Tensor:
    """Of all pairs, (rows, rows)."""
    unit = F.normalize(rows, dim=1)
    return unit @ unit.T
