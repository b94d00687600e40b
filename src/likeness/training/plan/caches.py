"""Bytes on disk of what `likeness train precompute` keeps."""

from dataclasses import dataclass

from likeness.methods.fantasy_id import FantasyID
from likeness.training.files.sample import VIDEO_SUFFIXES
from likeness.training.files.samples import read_samples
from likeness.training.methods.settings import MethodRecipe
from likeness.training.plan.flops import count_tokens
from likeness.training.plan.memory import DTYPE_BYTES
from likeness.training.plan.sizes import MetaModels

CROP_PX, DETAIL_PX = 224, 512
"""Sides of the pictures that are kept of each reference: head crop and whole picture, and the detail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSizes:
    """Files of a recipe, and bytes of what is encoded of them."""

    images: int
    clips: int
    source: str
    """Where the numbers come from."""
    latents: float
    targets: float
    """Masks and landmarks of faces."""
    text: float
    references: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.latents + self.targets + self.text + self.references


def estimate_cache_sizes(models: MetaModels, recipe: MethodRecipe, samples: int) -> CacheSizes:
    """The size of the caches, for the data set if it is here, else for `samples` files of each kind that is trained on.

    Every caption counts as different, and every clip as of full length.
    """
    assert recipe.data is not None
    if recipe.data.path.exists():
        found = [
            one.media.suffix.lower() in VIDEO_SUFFIXES
            for one in read_samples(recipe.data.path, media_root=recipe.data.media_root)
        ]
        images, clips, source = found.count(False), found.count(True), str(recipe.data.path)
    else:
        kinds = {stage.data for stage in recipe.stages}
        images = samples if kinds & {"images", "mixed"} else 0
        clips = samples if kinds & {"clips", "mixed"} else 0
        source = f"--samples {samples} of each kind; {recipe.data.path} is not here"
    latents = targets = 0.0
    for number, is_image in ((images, True), (clips, False)):
        frames, height, width = count_tokens(models, recipe.data, is_image=is_image).latent
        latents += number * 2 * int(models.config.in_channels) * frames * height * width
        targets += number * frames * (2 * height * width + 4 * 5 * 2)
    config = models.config
    # States with the class word once for each number of references, and without; FantasyID's prompts do not change.
    prompts = (images + clips) * (1 if isinstance(models.method, FantasyID) else 3)
    text = prompts * config.max_text_seq_length * config.text_embed_dim * DTYPE_BYTES[recipe.base_dtype]
    view = 3 * (2 * CROP_PX**2 + DETAIL_PX**2) + 4 * (512 + 10)
    views = images + clips * recipe.data.num_views
    return CacheSizes(
        images=images,
        clips=clips,
        source=source,
        latents=latents,
        targets=targets,
        text=float(text),
        references=float(view * views),
    )
