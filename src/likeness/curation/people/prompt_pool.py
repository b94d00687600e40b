"""Prompts for pictures that are generated of a person: combinations of what people do, where, and how it is seen.

Generated pictures show one identity in many situations (sets C and D of Magic Mirror's data, M14).
"""

from collections.abc import Sequence

import numpy as np

from likeness.config import Settings
from likeness.errors import ConfigError

ACTIONS = (
    "smiling", "laughing", "talking", "reading a book", "drinking coffee", "looking to the side", "looking up",
    "playing the guitar", "cooking", "walking a dog", "riding a bicycle", "working at a desk", "listening to music",
    "waving", "thinking", "singing",
)  # fmt: skip
PLACES = (
    "in a park", "in a kitchen", "on a beach", "in a city street at night", "in a library", "in a forest",
    "in an office", "in front of a plain wall", "in a cafe", "on a mountain", "in a train", "in a garden", "on a stage",
    "in the snow",
)  # fmt: skip
LIGHTS = ("in soft daylight", "in the evening sun", "in the light of a window", "in studio light", "in neon light")
SHOTS = ("close-up", "head and shoulders", "upper body", "three-quarter view")


class PromptPool(Settings):
    """What prompts are made of; each list must have an entry."""

    actions: tuple[str, ...] = ACTIONS
    """What the person does, as "smiling"."""
    places: tuple[str, ...] = PLACES
    """Where, as "in a park"."""
    lights: tuple[str, ...] = LIGHTS
    """In which light."""
    shots: tuple[str, ...] = SHOTS
    """How much of the person is seen."""

    def sample(self, count: int, *, seed: int, class_word: str = "person") -> list[str]:
        """Different prompts for one person, as "a woman smiling in a park in soft daylight, close-up".

        Args:
            count: How many.
            seed: The same seed gives the same prompts.
            class_word: The noun that names the person.

        Raises:
            ConfigError: The pool has fewer prompts.
        """
        parts: Sequence[tuple[str, ...]] = (self.actions, self.places, self.lights, self.shots)
        sizes = [len(part) for part in parts]
        total = int(np.prod(sizes))
        if count > total:
            raise ConfigError(
                f"{count} prompts are asked for, but the pool has {total}. Add actions, places, lights or shots."
            )
        numbers = np.random.default_rng([seed, 7301]).choice(total, size=count, replace=False)
        noun = class_word.partition(":")[0]
        article = "an" if noun[:1].lower() in set("aeiou") else "a"
        prompts = []
        for indices in np.stack(np.unravel_index(numbers, sizes), axis=1):
            action, place, light, shot = (part[index] for part, index in zip(parts, indices, strict=True))
            prompts.append(f"{article} {noun} {action} {place} {light}, {shot}")
        return prompts
