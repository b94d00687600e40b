import copy
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from likeness import media, weights
from likeness.errors import ConfigError, WeightsError
from likeness.faces import DlibEngine
from likeness.puppets import sample_image, sample_person
from likeness.training.data.prompts import caption_without_trigger
from likeness.training.engine.logging import TrainingLogger
from likeness.training.files.settings import FileDataSettings
from likeness.training.precompute import run
from likeness.training.precompute.dataset import open_data
from likeness.training.precompute.plan import EncodingSettings, plan_data
from likeness.training.precompute.prepare import describe_encoding, find_cache
from likeness.training.run import precompute as precompute_files

ENCODING = EncodingSettings(vae="v", text_encoder="t", engine="dlib", frame_step=8, side_step_px=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two people, two of each, one picture without a face, and one caption without a person."""
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for person in range(2):
        for take in range(2):
            clip = sample_image(910_000 + 10 * person + take, person=sample_person(900_000 + person), size_px=192)
            media.write_image(folder / f"{person}_{take}.png", clip.frames[0])
            rows.append({"media": f"{person}_{take}.png", "caption": caption_without_trigger({"prompt": clip.prompt}),
                         "person": f"p{person}"})  # fmt: skip
    media.write_image(folder / "wall.png", np.full((96, 96, 3), 90, np.uint8))
    rows.append({"media": "wall.png", "caption": "a woman behind a wall", "person": "p0"})
    rows.append({"media": "0_0.png", "caption": "an empty street at night", "person": "p0"})
    (folder / "set.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[:5]))
    return folder


class RememberingEngine(DlibEngine):
    """Detects and embeds in the same pixels once: in what is read again and again it is the numbers that count."""

    def __init__(self):
        super().__init__()
        self.known = {}

    def detect(self, picture):
        return self._once(super().detect, picture)

    def embed(self, picture, landmarks):
        return self._once(super().embed, picture, landmarks)

    def _once(self, call, *arrays):
        key = (call.__name__, *((array.shape, array.tobytes()) for array in arrays))
        if key not in self.known:
            self.known[key] = call(*arrays)
        return copy.deepcopy(self.known[key])


ENGINE = RememberingEngine()


class CountingEncoders:
    """Encoders that are cheap and count their calls."""

    def __init__(self):
        self.latents_made = self.texts_made = self.faces_read = 0

    def build(self):
        engine, outer = ENGINE, self

        class Engine:
            def __getattr__(self, name):
                return getattr(engine, name)

            def detect(self, picture):
                outer.faces_read += 1
                return engine.detect(picture)

        def latents(sample):
            self.latents_made += 1
            counts = (sample.bucket.frames - 1) // 4 + 1
            return torch.zeros(counts, 16, sample.bucket.height_px // 8, sample.bucket.width_px // 8).half()

        def text(token_ids):
            self.texts_made += 1
            return token_ids[:, :, None].float().expand(-1, -1, 4).clone()

        def tokenize(prompts):
            return [torch.tensor([len(prompt), sum(map(ord, prompt)) % 1000, 1]) for prompt in prompts]

        return run.Encoders(latents=lambda: latents, text=lambda: text, engine=Engine, tokenize=tokenize)


def plan(folder, **changes):
    values = {"path": folder / "set.jsonl", "resolution_px": 64, "num_frames": 1, "references": "other", **changes}
    return plan_data(FileDataSettings(**values), ENCODING, seed=0, needs_class_word=True)


def do(folder, cache, **changes):
    encoders, wanted = CountingEncoders(), plan(folder, **changes)
    run.precompute(wanted, cache, encoders.build(), TrainingLogger(cache.folder, "precompute"))
    return encoders, wanted


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    cache = run.Cache(folder=tmp_path_factory.mktemp("cache"))
    encoders, wanted = do(folder, cache)
    return cache, encoders, wanted


def test_a_second_run_encodes_nothing(folder, done):
    cache, first, _ = done
    second, _ = do(folder, run.Cache(folder=cache.folder))
    assert first.latents_made == 4
    assert (second.latents_made, second.texts_made, second.faces_read) == (0, 0, 0)


def test_a_file_without_a_face_is_left_out_and_listed(done):
    cache, _, wanted = done
    listed = [json.loads(line) for line in (cache.folder / run.SKIPPED).read_text().splitlines()]
    assert [line for line in listed if line.get("file", "").endswith("wall.png")]
    data = open_data(wanted, cache, lambda shards: shards)
    assert len(data.targets["images"]) == 4


def test_the_warning_names_the_first_file_that_is_left_out_and_their_share(folder, done, caplog):
    do(folder, run.Cache(folder=done[0].folder))
    assert f"files left out: 1 of 5, listed with reasons in {done[0].folder / run.SKIPPED}" in caplog.text
    assert f"the first: {folder / 'wall.png'}" in caplog.text


def test_only_what_a_changed_setting_touches_is_encoded_again(folder, done):
    cache, _, _ = done
    encoders, _ = do(folder, run.Cache(folder=cache.folder), num_views=3)
    assert encoders.latents_made == 0
    assert encoders.faces_read > 0
    encoders, _ = do(folder, run.Cache(folder=cache.folder), resolution_px=96)
    assert encoders.latents_made == 4


@pytest.mark.parametrize("kind", ["latents", "targets", "views"])
def test_items_of_a_damaged_shard_are_made_again(folder, done, tmp_path, kind):
    shutil.copytree(done[0].folder, tmp_path / "cache")
    cache = run.Cache(folder=tmp_path / "cache")
    sample = done[2].samples["train"][0]
    key = {"latents": sample.latents, "targets": sample.targets, "views": f"{sample.references[0]}.0"}[kind]
    records = (cache.folder / "items").glob(f"{kind}*/*.json")
    shard = next(path for path in records if key in path.read_text()).with_suffix(".safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8] + bytes(byte ^ 255 for byte in whole[-8:]))
    assert cache.store.verify() == [shard]
    _, wanted = do(folder, cache)
    assert cache.store.verify() == []
    data = open_data(wanted, cache, lambda shards: shards)
    assert data.targets["images"]["latents"][torch.arange(4)].shape == (4, 1, 16, 8, 8)
    assert data.references["train"]["crop"][torch.arange(4)].shape == (4, 224, 224, 3)
    assert shard.read_bytes() == whole


def test_another_file_under_the_same_name_is_encoded_again(folder, done, tmp_path):
    cache, _, _ = done
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    picture = media.read_image(tmp_path / "0_0.png")
    media.write_image(tmp_path / "0_0.png", picture[:, ::-1])
    encoders, _ = do(tmp_path, run.Cache(folder=cache.folder))
    assert encoders.latents_made == 1


def test_rows_have_latents_masks_landmarks_references_and_text(done):
    cache, _, wanted = done
    data = open_data(wanted, cache, lambda shards: shards)
    targets, references = data.targets["images"], data.references["train"]
    rows = torch.arange(2)
    assert targets["latents"][rows].shape == (2, 1, 16, 8, 8)
    assert 0 < float(targets["mask"][rows].float().mean()) < 0.6
    landmarks = targets["landmarks"][rows]
    assert landmarks.shape == (2, 1, 5, 2)
    assert bool(((landmarks > 0) & (landmarks < 64)).all())
    assert references["crop"][rows].shape == (2, 224, 224, 3)
    assert references["detail"][rows].shape == (2, 512, 512, 3)
    assert references["embedding"][rows].shape == (2, 128)
    for row, own in enumerate(targets.reference_rows):
        for reference in own:  # `other`: never the target itself.
            assert references.metadata[reference]["person"] == targets.metadata[row]["person"]
            assert targets.metadata[row]["prompt"] not in str(references.metadata[reference])


def test_every_process_writes_its_share_and_all_of_it_is_found(folder, tmp_path, monkeypatch):
    cache = run.Cache(folder=tmp_path)
    made = []
    for rank in (0, 1):
        monkeypatch.setattr(run.distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(run.distributed, "world_size", lambda: 2)
        monkeypatch.setattr(run.distributed, "barrier", lambda: None)
        made.append(do(folder, cache)[0].latents_made)
    monkeypatch.undo()
    encoders, _ = do(folder, run.Cache(folder=tmp_path))
    # The second process finds the faces of the first, which decide what is usable.
    assert encoders.latents_made == 0 or sum(made) + encoders.latents_made == 4


def test_a_data_set_without_a_usable_caption_is_refused(folder, tmp_path):
    (tmp_path / "0_0.png").write_bytes((folder / "0_0.png").read_bytes())
    (tmp_path / "set.jsonl").write_text(json.dumps({"media": "0_0.png", "caption": "an empty street at night"}))
    with pytest.raises(
        ConfigError, match=r"1 of 1 captions(.|\n)*0_0\.png: .*an empty street at night(.|\n)*class_word"
    ):
        plan(tmp_path)


def test_other_weights_of_the_base_give_other_keys(tmp_path):
    tiny = weights.CHECKPOINTS / "tiny"
    settings = SimpleNamespace(engine=None)
    here = describe_encoding(settings, tiny, tiny / "recognizer")
    assert here.engine == "dlib"
    assert here.side_step_px in (8, 16)
    assert describe_encoding(settings, tiny, "research").engine == "research"
    assert find_cache(tmp_path).folder == tmp_path / "files"


def test_missing_weights_of_the_engine_are_not_recorded_as_a_fault_of_the_files(folder, tmp_path):
    class Engine:
        def detect(self, *_):
            raise WeightsError("The face engine lacks weights.")

    cache, encoders = run.Cache(folder=tmp_path), CountingEncoders()
    broken = dataclasses.replace(encoders.build(), engine=Engine)
    with pytest.raises(WeightsError, match="lacks weights"):
        run.precompute(plan(folder), cache, broken, TrainingLogger(tmp_path, "precompute"))
    # With the weights in place, the same cache is complete.
    _, wanted = do(folder, cache)
    assert len(open_data(wanted, cache, lambda shards: shards).targets["images"]) == 4


def by_size(shards):
    """Chooses crops by their size, as methods do, which an empty set of references does not have."""
    assert shards["crop"].shape[1] == 224
    return shards


def test_without_validation_people_sheets_show_those_of_the_training_set(done, caplog):
    cache, _, wanted = done
    data = open_data(wanted, cache, by_size)
    assert "There are no validation people" in caplog.text
    assert data.validation_targets["images"].metadata == data.targets["images"].metadata
    assert data.references["validation"].metadata == data.references["train"].metadata


def test_a_data_set_of_damaged_files_alone_is_refused_with_the_list_of_reasons(tmp_path):
    (tmp_path / "0.png").write_bytes(b"no picture")
    (tmp_path / "set.jsonl").write_text(json.dumps({"media": "0.png", "caption": "a woman smiles"}))
    cache = run.Cache(folder=tmp_path / "cache")
    _, wanted = do(tmp_path, cache)
    with pytest.raises(ConfigError, match=r"none has a face in its frames(.|\n)*skipped\.jsonl"):
        open_data(wanted, cache, by_size)


def test_more_processes_than_fit_in_memory_are_refused_before_anything_starts(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("kind = 'magic_mirror'\n")
    with pytest.raises(ConfigError, match="processes need at least"):
        precompute_files(recipe, output=tmp_path / "run", processes=100_000)


def test_each_target_is_decoded_once(folder, tmp_path, monkeypatch):
    read = []
    inner = run.read_media
    monkeypatch.setattr(
        run, "read_media", lambda path, *args, **kwargs: read.append(path) or inner(path, *args, **kwargs)
    )
    do(folder, run.Cache(folder=tmp_path / "cache"))
    assert len(read) == len(set(read)) == 5


def test_a_recognizer_that_does_not_exist_is_refused_before_files_are_read(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'kind = "magic_mirror"\nbase = "{tmp_path}"\nrecognizer = "{tmp_path / "absent"}"\n'
        f'[data]\nkind = "files"\npath = "{tmp_path / "set.jsonl"}"\nresolution_px = 64\n'
        '[[stages]]\nname = "images"\ndata = "images"\nsteps = 1\nbatch = 1\n'
    )
    with pytest.raises(WeightsError, match=r"`recognizer` is .* does not exist"):
        precompute_files(recipe, output=tmp_path / "run")
