"""Teaches FantasyID's descriptor who is like whom before it is used in any video.

The paper's descriptor begins with an encoder that knows faces; this one begins knowing little. Here two people are to be as alike
in V_F as they are by a face recognizer, whichever of their pictures is read: the mean of
(cos(f_i, f_j) - cos(e_i, e_j))^2 over pairs of a batch, f the mean token of V_F less that of the batch, e the person's
mean standardized embedding. No sentence, latent or transformer takes part, so a minute of it sees ten times as many
people as a minute of the image stage.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness import media
from likeness.identity.recognizer import Recognizer
from likeness.training.data import Order, Shards, jittered, to_pixels
from likeness.training.lessons import Lesson
from likeness.training.loop import LoopSettings


class DescriptorSettings(LoopSettings):
    """The stage before the image stage."""

    name: str = "descriptor"
    batch: int = 96


class DescriptorStage:
    """Relations between people, from embeddings to V_F."""

    def __init__(
        self,
        descriptor: nn.Module,
        lesson: Lesson,
        recognizer: Recognizer,
        settings: DescriptorSettings,
        data: dict[str, Any],
        seed: int,
    ) -> None:
        self.descriptor, self.lesson, self.settings, self.data = descriptor, lesson, settings, data
        self.modules: dict[str, nn.Module] = {"descriptor": descriptor}
        self.looks = [torch.tensor(rows) for rows in lesson.looks(data).values()]
        self.wanted = person_embeddings(data["faces"], recognizer)
        self.unseen = [rows[0] for rows in data["unseen"].rows_of("person").values()][:64]
        self.unseen_wanted = person_embeddings(data["unseen"], recognizer)[self.unseen]
        self.order = Order(len(self.looks), seed)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        people = self.order.rows(step, self.settings.batch)
        rows = torch.stack(
            [self.looks[i][torch.randint(len(self.looks[i]), ())] for i in people.tolist()]
        ).unsqueeze(1)
        pixels = jittered(self.data["faces"]["crop"], rows)
        features = self.descriptor(pixels, self.lesson.traits(self.data, "faces", rows)).mean(dim=1)
        error = relation_error(features, self.wanted[rows[:, 0]])
        return error, {"relation": float(error.detach())}

    @torch.no_grad()
    def sheet(self, path: Path) -> dict[str, float]:
        """How alike unseen people are: by embeddings on the left, by V_F on the right, white for the same."""
        self.descriptor.eval()
        rows = torch.tensor(self.unseen)
        vertices = self.lesson.traits(self.data, "unseen", rows[:, None])
        features = self.descriptor(to_pixels(self.data["unseen"]["crop"][rows]), vertices).mean(dim=1)
        self.descriptor.train()
        seen, wanted = relations(features), cosines(self.unseen_wanted)
        gray = ((torch.cat([wanted, seen], dim=1) + 1) * 127.5).byte().numpy()
        media.write_picture(path, np.kron(np.stack([gray] * 3, axis=-1), np.ones((6, 6, 1), dtype=np.uint8)))
        first, second = torch.triu_indices(len(rows), len(rows), offset=1)
        return {
            "unseen_relation": float(relation_error(features, self.unseen_wanted)),
            "unseen_correlation": float(np.corrcoef(seen[first, second], wanted[first, second])[0, 1]),
        }


def person_embeddings(faces: Shards, recognizer: Recognizer) -> Tensor:
    """For each row, (rows, numbers): the mean standardized embedding of the person whose row it is."""
    own = recognizer.standardize(faces["embedding"])
    mean = torch.empty_like(own)
    for rows in faces.rows_of("person").values():
        mean[rows] = own[rows].mean(dim=0)
    return mean


def cosines(rows: Tensor) -> Tensor:
    """Of all pairs, (rows, rows)."""
    unit = F.normalize(rows, dim=1)
    return unit @ unit.T


def relations(features: Tensor) -> Tensor:
    """Cosines of features less their mean: what all people share says nothing of one."""
    return cosines(features - features.mean(dim=0))


def relation_error(features: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of what cosines of features and of embeddings differ by, over pairs of different rows."""
    others = ~torch.eye(len(features), dtype=torch.bool)
    return (relations(features) - cosines(wanted))[others].square().mean()
