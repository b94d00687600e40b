import os
import tarfile

import numpy as np
import pytest

from likeness.errors import ConfigError, MediaError
from likeness.training.files import tar
from likeness.training.files.buckets import make_grid
from likeness.training.files.media_tensors import read_media
from likeness.training.files.samples import Sample, read_samples
from likeness.training.files.webdataset import write_shards

GRID = make_grid(num_frames=9, resolution_px=64)


def make_samples(folder):
    media = [folder.video("m/a.mp4"), folder.image("m/b.PNG"), folder.image("m/c.png", 64, 48)]
    return [
        Sample(media=path, caption=f"a woman waves {number}", person="ann", references=(media[2],), class_word="woman")
        for number, path in enumerate(media[:2])
    ] + [Sample(media=media[2], caption="a woman nods", person="ann", repeats=2)]


@pytest.mark.parametrize("max_shard_bytes", [1, 1_000_000_000])
def test_shards_give_the_samples_and_frames_of_the_files(folder, max_shard_bytes):
    samples = make_samples(folder)
    written = write_shards(samples, folder.path / "shards", max_shard_bytes=max_shard_bytes)
    read = read_samples(folder.path / "shards")
    assert read == written
    assert len(list((folder.path / "shards").glob("*.tar"))) == (3 if max_shard_bytes == 1 else 1)
    for before, after in zip(samples, read, strict=True):
        assert (after.caption, after.person, after.class_word, after.repeats) == (
            before.caption,
            before.person,
            before.class_word,
            before.repeats,
        )
        assert len(after.references) == len(before.references)
        expected, found = read_media(before.media, GRID, fps=8), read_media(after.media, GRID, fps=8)
        assert np.array_equal(expected.frames, found.frames)
        for one, other in zip(before.references, after.references, strict=True):
            assert tar.read_bytes(other) == one.read_bytes()


def test_equal_samples_give_equal_bytes(folder):
    samples = make_samples(folder)
    for name in ("one", "two"):
        write_shards(samples, folder.path / name)
    one, two = ({path.name: path.read_bytes() for path in (folder.path / name).iterdir()} for name in ("one", "two"))
    assert "00000.tar" in one
    assert one == two


def test_shards_are_plain_tar_files_with_one_key_for_each_sample(folder):
    write_shards(make_samples(folder), folder.path / "shards")
    with tarfile.open(folder.path / "shards" / "00000.tar", "r:") as archive:
        assert archive.getnames() == [
            "00000000.mp4",
            "00000000.reference0.png",
            "00000000.txt",
            "00000001.png",
            "00000001.reference0.png",
            "00000001.txt",
            "00000002.png",
            "00000002.txt",
        ]


def test_shards_are_not_written_over_others(folder):
    samples = make_samples(folder)
    write_shards(samples, folder.path / "shards")
    with pytest.raises(ConfigError, match="is not empty"):
        write_shards(samples, folder.path / "shards")


def test_a_folder_of_shards_appears_when_it_is_complete(folder):
    samples = make_samples(folder)
    samples[2].media.unlink()
    with pytest.raises(MediaError, match=r"c\.png"):
        write_shards(samples, folder.path / "shards", max_shard_bytes=1)
    assert sorted(path.name for path in folder.path.iterdir()) == ["m"]


def test_a_member_that_is_not_there_is_a_problem_of_the_manifest(folder):
    write_shards(make_samples(folder), folder.path / "shards")
    shard = folder.path / "shards" / "00000.tar"
    path = folder.text("m.csv", "media,caption,person\nshards/00000.tar/9.png,a woman waves,ann\n")
    with pytest.raises(ConfigError, match=r"does not exist in .*00000\.tar"):
        read_samples(path)
    with pytest.raises(MediaError, match="has no member"):
        tar.read_bytes(shard / "9.png")


def test_a_truncated_shard_is_refused(folder):
    write_shards(make_samples(folder), folder.path / "shards")
    shard = folder.path / "shards" / "00000.tar"
    os.truncate(shard, 1000)
    with pytest.raises(MediaError, match=r"00000\.tar"):
        read_samples(folder.path / "shards")


def test_a_compressed_tar_file_is_refused(folder):
    media = folder.image("a.png")
    with tarfile.open(folder.path / "a.tar", "w:gz") as archive:
        archive.add(media, "a.png")
    with pytest.raises(MediaError, match="uncompressed tar"):
        tar.members(folder.path / "a.tar")


def test_errors_name_the_member_and_not_a_temporary_copy(folder):
    folder.text("broken.png", b"\x89PNG\r\n\x1a\n broken")
    with tarfile.open(folder.path / "a.tar", "w") as archive:
        archive.add(folder.path / "broken.png", "broken.png")
    with pytest.raises(MediaError, match=r"a\.tar/broken\.png") as caught:
        read_media(folder.path / "a.tar" / "broken.png", GRID, fps=8)
    assert "likeness-media" not in str(caught.value)


def test_no_copy_of_a_member_stays(folder, tmp_path_factory, monkeypatch):
    write_shards(make_samples(folder), folder.path / "shards")
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for sample in read_samples(folder.path / "shards"):
        read_media(sample.media, GRID, fps=8)
    assert list(temporary.iterdir()) == []
