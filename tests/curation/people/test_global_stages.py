"""Duplicates, identities, views and pairs, on candidates without files."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from likeness.curation.people.duplicates import Duplicates, DuplicateSettings
from likeness.curation.people.identities import Identities, IdentitySettings, group_people
from likeness.curation.people.pairs import PuppetPairs, filter_pairs
from likeness.curation.people.prompt_pool import PromptPool
from likeness.curation.people.views import Views, ViewSettings
from likeness.curation.stage import Candidate, GlobalStage, make_id
from likeness.errors import ConfigError


def candidate(source: str, *, first: int = 0, count: int = 8, track: str = "", **facts: Any) -> Candidate:
    known = {"engine": "open/auraface", "metric": "cosine", "threshold": 1.1, "fps": 8.0}
    return Candidate(
        id=make_id(source, first, count, track),
        source=source,
        first_frame=first,
        num_frames=count,
        facts={**known, "width_px": 200, "height_px": 100, **facts},
    )


def hashed(one: Candidate, seed: int, flips: int = 0, place: tuple[float, ...] = (0.3, 0.3, 0.6, 0.6)) -> Candidate:
    bits = np.random.default_rng(seed).integers(0, 2, (4, 256), dtype=np.uint8)
    bits[:, :flips] ^= 1
    arrays = {"hashes": np.packbits(bits, axis=1), "place": np.array(place, np.float32)}
    return replace(one, arrays=arrays)


def reasons(found: list[Candidate]) -> list[str | None]:
    return [one.dropped.reason if one.dropped else None for one in found]


def test_stages_follow_the_protocol():
    for kind in (Duplicates, Identities, Views):
        assert isinstance(kind(kind.Settings()), GlobalStage)


def test_the_copy_with_the_largest_face_is_kept():
    copies = [
        hashed(candidate("a", face_px=80.0), 1),
        hashed(candidate("b", face_px=120.0), 1, flips=20),
        hashed(candidate("c", face_px=200.0), 2),
    ]
    found = Duplicates(DuplicateSettings())(copies)
    assert reasons(found) == ["copy of another", None, None]
    assert found[0].dropped.value == found[1].id
    assert [one.facts.get("num_copies") for one in found[1:]] == [1, 0]


def test_chains_do_not_drop_what_is_no_copy_of_a_kept_one():
    chain = [hashed(candidate(name, face_px=px), 1, flips=flips)
             for name, px, flips in (("a", 9.0, 0), ("b", 8.0, 30), ("c", 7.0, 60))]  # fmt: skip
    assert reasons(Duplicates(DuplicateSettings())(chain)) == [None, "copy of another", None]


def test_two_people_of_one_clip_are_no_copies_but_a_repeated_span_is():
    left, right = (0.1, 0.2, 0.4, 0.6), (0.6, 0.2, 0.9, 0.6)
    found = [
        hashed(candidate("a", track="0", face_px=9.0), 1, place=left),
        hashed(candidate("a", track="1", face_px=9.0), 1, place=right),
        hashed(candidate("b", track="0", face_px=8.0), 1, place=left),
        hashed(candidate("b", track="1", face_px=8.0), 1, place=right),
        hashed(candidate("a", first=50, track="0", face_px=7.0), 1, place=left),
        hashed(candidate("c", count=40, face_px=1.0), 1, place=left),
    ]
    assert reasons(Duplicates(DuplicateSettings())(found)) == [
        None, None, "copy of another", "copy of another", "copy of another", None,
    ]  # fmt: skip


def people(num_people: int, num_each: int, *, spread: float = 0.02, width: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_people, width))
    points = centers.repeat(num_each, 0) + spread * rng.normal(size=(num_people * num_each, width))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_people_are_found_also_those_of_two_clips_and_of_one():
    embeddings = np.concatenate([people(5, 4), people(8, 2)[12:], people(9, 1)[8:]])
    found = group_people(embeddings, limit=0.7)
    assert found == [k // 4 for k in range(20)] + [5, 5, 6, 6, 7]


def test_density_alone_does_not_join_people():
    angles = np.linspace(0, np.pi, 30)  # A chain of pictures between two people.
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = np.array(group_people(chain, limit=0.7))
    for number in np.unique(found):
        inside = chain[found == number]
        assert np.linalg.norm(inside[:, None] - inside[None], axis=-1).mean() < 0.7


def test_two_at_one_time_are_two_people_and_others_join_the_nearer():
    base = people(1, 4, spread=0.01)
    found = group_people(base, limit=0.7, apart=[(0, 1)])
    assert found[0] != found[1]
    assert len(set(found)) == 2


def test_given_names_join_and_part():
    embeddings = np.concatenate([people(2, 3)])
    names = ["ann", "", "", "ann", "", ""]
    assert len(set(group_people(embeddings, limit=0.7, names=names))) == 1
    names = ["ann", "bob", "", "", "", ""]
    found = group_people(embeddings, limit=0.7, names=names)
    assert found[0] != found[1]


def tracked(one: Candidate, embedding: np.ndarray, frames: range) -> Candidate:
    arrays = {"embeddings": np.tile(embedding, (len(frames), 1)), "frames": np.array(frames)}
    return replace(one, arrays=arrays)


def test_identities_write_names_that_do_not_depend_on_the_order():
    faces = people(2, 3)
    given = [tracked(candidate(f"{k}", person="ann" if k == 0 else ""), face, range(8)) for k, face in enumerate(faces)]
    found = Identities(IdentitySettings())(given)
    names = [one.facts["person"] for one in found]
    assert names[:3] == ["ann"] * 3
    assert len(set(names[3:])) == 1
    assert names[3].startswith("person-")
    again = Identities(IdentitySettings())(given[::-1])
    assert [one.facts["person"] for one in again[::-1]] == names
    assert [one.facts["person_size"] for one in found] == [3] * 6


def test_tracks_at_one_time_in_a_video_are_two_people():
    face = people(1, 2, spread=0.01)
    one = tracked(candidate("a", track="0"), face[0], range(0, 8))
    other = tracked(candidate("a", track="1"), face[1], range(4, 12))
    found = Identities(IdentitySettings())([one, other])
    assert found[0].facts["person"] != found[1].facts["person"]
    later = tracked(candidate("a", first=20, track="1"), face[1], range(20, 28))
    found = Identities(IdentitySettings())([one, later])
    assert found[0].facts["person"] == found[1].facts["person"]


def test_single_candidates_can_be_dropped_and_engines_do_not_mix():
    faces = people(2, 1)
    given = [tracked(candidate(f"{k}"), face, range(8)) for k, face in enumerate(faces)]
    assert reasons(Identities(IdentitySettings(single="drop"))(given)) == ["no other picture of the person"] * 2
    assert reasons(Identities(IdentitySettings())(given)) == [None, None]
    mixed = [given[0], replace(given[1], facts={**given[1].facts, "engine": "dlib"})]
    with pytest.raises(ConfigError, match="do not compare"):
        Identities(IdentitySettings())(mixed)


def posed(one: Candidate, yaws: list[float], *, scores: float | list[float] = 0.95) -> Candidate:
    count = len(yaws)
    arrays = {
        "frames": one.first_frame + np.arange(count),
        "boxes": np.tile(np.array([80, 30, 120, 70], np.float32), (count, 1)),
        "poses": np.stack([np.array(yaws), np.zeros(count), np.zeros(count)], axis=1).astype(np.float32),
        "scores": np.broadcast_to(np.float32(scores), (count,)),
        "embeddings": np.ones((count, 4), np.float32),
    }
    return replace(one, arrays=arrays)


def test_views_of_one_track_differ_in_pose_and_are_certain():
    one = posed(candidate("a", first=10), [0, 1, 2, 30, -30, 60], scores=[0.95] * 5 + [0.5])
    (found,) = Views(ViewSettings(num_views=4))([one])
    assert [view["frame"] for view in found.facts["references"]] == [10, 13, 14]
    assert found.facts["references"][0] == {"candidate": one.id, "frame": 10, "box": [60, 10, 140, 90]}


def test_cross_views_come_from_other_sources_of_the_person():
    ann = [posed(candidate(name, person="ann"), [20.0, 5.0]) for name in ("a", "b", "c")]
    same = posed(candidate("a", first=50, person="ann"), [0.0])
    bob = posed(candidate("d", person="bob"), [0.0])
    found = Views(ViewSettings(origin="cross"))([*ann, same, bob])
    chosen = {view["candidate"] for view in found[0].facts["references"]}
    assert chosen == {ann[1].id, ann[2].id}
    assert {view["frame"] for view in found[0].facts["references"]} == {1}
    assert found[4].dropped.reason == "too few reference views"
    both = Views(ViewSettings(origin="both"))([bob])
    assert [view["candidate"] for view in both[0].facts["references"]] == [bob.id]


def test_a_prompt_pool_gives_different_prompts_and_the_same_ones_again():
    pool = PromptPool()
    prompts = pool.sample(50, seed=1, class_word="woman:2")
    assert len(set(prompts)) == 50
    assert prompts == pool.sample(50, seed=1, class_word="woman:2") != pool.sample(50, seed=2, class_word="woman:2")
    assert all(prompt.startswith("a woman ") for prompt in prompts)
    with pytest.raises(ConfigError, match="the pool has 1"):
        PromptPool(actions=("a",), places=("b",), lights=("c",), shots=("d",)).sample(2, seed=0)


def test_pairs_keep_the_person_and_drop_near_copies(engine, squares):
    red, moved, green, empty = squares([[(0, 10, 10)], [(0, 60, 60)], [(1, 10, 10)], []])
    kept = filter_pairs([red, red, green, empty, moved], np.array([1, 0, 0]), engine, min_variety=0.1)
    assert kept == [0, 4]


@pytest.mark.slow
def test_puppets_are_rendered_again_as_the_same_person():
    pictures = PuppetPairs(size_px=64)([], ["a", "b"], seed=3, facts={"puppet": "7"})
    again = PuppetPairs(size_px=64)([], ["a", "b"], seed=3, facts={"puppet": "7"})
    assert np.array_equal(pictures, again)
    assert not np.array_equal(pictures[0], pictures[1])
    with pytest.raises(ConfigError, match="`puppet`"):
        PuppetPairs()([], ["a"], seed=0, facts={})
