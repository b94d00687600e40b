import json
from collections import Counter
from dataclasses import replace

import pytest
from survey import PEOPLE, SYSTEMS, make_study

from likeness.app.study.create import StudyOptions, create_study, plan_study
from likeness.app.study.manifest import SITE, Study
from likeness.app.study.pairing import pair_videos, read_systems
from likeness.app.study.questions import FOLDER, read_questionnaire
from likeness.errors import ConfigError
from likeness.evaluation.inputs.reference_matching import find_references, remove_trigger_words
from likeness.media import read_metadata, read_video


def test_nothing_public_names_the_system(shared_study, study):
    site = shared_study / SITE
    for path in site.rglob("*"):
        assert not any(word in path.name for word in (*SYSTEMS, *PEOPLE))
        content = path.read_bytes() if path.is_file() else b""
        for word in (*SYSTEMS, *PEOPLE, "settings", "img_paths", str(shared_study), "magic"):
            assert word.encode() not in content, f"{word} stands in {path}"
    assert len({path.stat().st_mtime for path in (site / "media").iterdir()}) == 1
    for item in study.items:
        assert read_metadata(site / "media" / f"{item.id}.mp4") == {}


def test_neutral_names_do_not_follow_the_order_of_systems(material):
    sets = pair_videos(read_systems([str(material / name) for name in SYSTEMS]), material / "references")
    orders = set()
    for seed in range(6):
        study, _ = plan_study(sets, read_questionnaire("magic_mirror"), StudyOptions(seed=seed))
        orders.add("".join(study.item_by_id[name].system[0] for name in sorted(study.item_by_id)))
    assert len(orders) >= 4


def test_videos_keep_their_size_and_length(material, shared_study, study):
    for item in study.items:
        ours, fps = read_video(shared_study / SITE / "media" / f"{item.id}.mp4")
        theirs, _ = read_video(material / item.system / f"{item.video}.mp4")
        assert (ours.shape, fps) == (theirs.shape, 8.0)
        # Noise is the worst case of a codec; one encoding more may not make another video of it.
        assert abs(ours.astype(float) - theirs).mean() < 12


def test_every_video_meets_as_many_raters_as_any_other(material, tmp_path):
    study = make_study(material, tmp_path / "study", videos_per_rater=4)
    for count in (1, 7, len(study.plans)):
        shown = Counter(trial for plan in study.plans[:count] for trial in plan if trial in study.item_by_id)
        numbers = [shown[item.id] for item in study.items]
        assert max(numbers) - min(numbers) <= 1
    for plan in study.plans:
        items = [study.item_by_id[trial] for trial in plan if trial in study.item_by_id]
        assert len(plan) == len(set(plan)) == 4 + len(study.checks)
        assert all(count == 2 for count in Counter(item.video for item in items).values())
        assert plan[0] in study.item_by_id
        assert set(study.check_by_id) <= set(plan)


def test_plans_differ_between_raters_and_come_back_from_the_stored_seed(shared_study, study):
    assert len(set(study.plans)) > 150
    assert Study.load(shared_study).plans == study.plans
    text = (shared_study / SITE / "data.js").read_text()
    public = json.loads(text.removeprefix("window.STUDY = ").rstrip(";\n"))
    assert public["plans"] == [list(plan) for plan in study.plans]
    assert str(study.seed) not in public


def test_the_trigger_word_is_not_shown(study):
    assert remove_trigger_words("a woman img, who waves") == "a woman , who waves"
    assert all("img" not in (item.prompt or "img") for item in study.items)


@pytest.mark.parametrize(
    ("name", "scale", "titles"),
    [
        ("magic_mirror", (1, 10), ["visual_quality", "text_alignment", "dynamic_degree", "id_similarity"]),
        (
            "fantasy_id",
            (0, 10),
            ["overall_quality", "face_similarity", "facial_structure", "facial_dynamics"],
        ),
    ],
)
def test_both_papers_questions_ship_with_their_scales(name, scale, titles):
    asked = read_questionnaire(name)
    assert (asked.lowest, asked.highest) == scale
    assert list(asked.names) == titles


def test_own_questions(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text((FOLDER / "fantasy_id.toml").read_text().replace("highest = 10", "highest = 5"))
    assert read_questionnaire(path).highest == 5
    path.write_text(path.read_text().replace("highest = 5", "highest = 50"))
    with pytest.raises(ConfigError, match="two to eleven numbers"):
        read_questionnaire(path)
    with pytest.raises(ConfigError, match="Did you mean `fantasy_id`"):
        read_questionnaire("fantasyid")


def test_longest_name_of_a_person_wins(tmp_path):
    for name in ("ann", "ann_b", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    people = find_references(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "ann_b_2.mp4").touch()
    (tmp_path / "x" / "annabel.mp4").touch()
    with pytest.raises(ConfigError, match="No reference for the video `annabel`"):
        pair_videos({"x": tmp_path / "x"}, tmp_path)
    (tmp_path / "x" / "annabel.mp4").unlink()
    assert pair_videos({"x": tmp_path / "x"}, tmp_path)[0].references == people["ann_b"]


def test_what_one_system_lacks_is_reported_or_left_out(material, tmp_path):
    (tmp_path / "less").mkdir()
    for person in PEOPLE[:2]:
        (tmp_path / "less" / f"{person}_1.mp4").touch()
    systems = {"a": material / SYSTEMS[0], "less": tmp_path / "less"}
    with pytest.raises(ConfigError, match="less lacks cleo_1"):
        pair_videos(systems, material / "references")
    assert len(pair_videos(systems, material / "references", allow_missing=True)) == 2


def test_manifest_in_the_layout_of_opens2v(material, tmp_path):
    entries = {f"{person}_1": {"img_paths": ["bert.jpg", "anna.jpg"], "prompt": "waves"} for person in PEOPLE}
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(entries))
    systems = read_systems([f"x={material / SYSTEMS[0]}"])
    sets = pair_videos(systems, material / "references", manifest=path)
    assert [reference.name for reference in sets[0].references] == ["bert.jpg", "anna.jpg"]
    path.write_text(json.dumps(entries | {"anna_1": {"img_paths": ["nobody.jpg"]}}))
    with pytest.raises(ConfigError, match=r"nobody\.jpg"):
        pair_videos(systems, material / "references", manifest=path)


def test_unusable_input_is_refused(material, tmp_path, shared_study):
    with pytest.raises(ConfigError, match="is no folder"):
        read_systems([str(tmp_path / "absent")])
    with pytest.raises(ConfigError, match="holds no video"):
        pair_videos({"a": tmp_path}, material / "references")
    with pytest.raises(ConfigError, match="Two systems are called"):
        read_systems([str(material / SYSTEMS[0])] * 2)
    with pytest.raises(ConfigError, match="already holds a study"):
        make_study(material, shared_study)
    with pytest.raises(ConfigError, match="Give at least 2"):
        make_study(material, tmp_path / "s", videos_per_rater=1)
    with pytest.raises(ConfigError, match="holds no study"):
        Study.load(tmp_path)


def test_questions_about_a_sentence_need_one(material, tmp_path):
    sets = pair_videos(read_systems([str(material / SYSTEMS[0])]), material / "references")
    with pytest.raises(ConfigError, match="`text_alignment` needs the sentence"):
        create_study(tmp_path / "s", [replace(one, prompt=None) for one in sets], read_questionnaire("magic_mirror"))
