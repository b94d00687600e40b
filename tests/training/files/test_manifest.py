import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from likeness.errors import ConfigError
from likeness.training.files.manifest import COLUMNS, write_manifest
from likeness.training.files.samples import Sample, read_samples, rows_by_person, split_people

ROW = {"media": "a.png", "caption": "a woman waves", "person": "ann"}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def refuse(path, **settings):
    with pytest.raises(ConfigError) as caught:
        read_samples(path, **settings)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_written_manifest_is_read_back_equal(folder, suffix):
    paths = [folder.image(name) for name in ("a/1.png", "a/2.png", "b, c.png")]
    first = Sample(
        media=paths[0],
        caption='a woman says "hello; you", then nods',
        person="ann",
        references=(paths[1],),
        class_word="woman",
        source="studio",
        licence="CC0-1.0",
        consent="forms/ann.pdf",
        repeats=3,
    )
    samples = [first, replace(first, media=paths[2], references=(paths[0], paths[1])), _plain(paths[1])]
    path = folder.path / f"manifest{suffix}"
    write_manifest(path, samples)
    assert read_samples(path) == samples
    assert tuple(field.name for field in fields(Sample)) == COLUMNS


def _plain(path):
    return Sample(media=path, caption="a man nods", person="ann")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["m.jsonl", "m.csv"])
def test_byte_order_marks_and_line_ends_of_windows_are_read(folder, start, end, name):
    media = folder.image("photos/a.png")
    lines = {
        "m.jsonl": [rb'{"media": "photos\\a.png", "caption": "a woman waves", "person": "ann"}', b""],
        "m.csv": [b"media,caption,person", b"photos\\a.png,a woman waves,ann"],
    }[name]
    path = folder.text(name, start + end.join(lines) + end)
    assert read_samples(path) == [Sample(media=media, caption="a woman waves", person="ann")]


def test_all_problems_are_listed_at_once_with_their_lines(folder):
    folder.image("a.png")
    folder.text("notes.pdf", "x")
    rows = [
        ROW,
        {**ROW, "media": "b.png"},
        {**ROW, "caption": "  "},
        {**ROW, "media": ""},
        {**ROW, "media": "notes.pdf"},
        {**ROW, "media": "../a.png"},
        {**ROW, "media": "/etc/passwd"},
        {**ROW, "media": "C:\\photos\\a.png"},
        {**ROW, "references": 3},
        {**ROW, "references": ["c.png"]},
        {**ROW, "repeats": 0},
        {**ROW, "caption": "женщина машет"},
        {**ROW, "caption": "a woman img and a man img"},
    ]
    path = folder.text("m.jsonl", jsonl(*rows) + "{not json\n[1]\n")
    message = refuse(path)
    assert "14 problems" in message
    expected = [
        "m.jsonl:2: `b.png` does not exist (did you mean `a.png`?)",
        "m.jsonl:3: the caption is empty",
        "m.jsonl:4: `media` is missing",
        "m.jsonl:5: `notes.pdf` is neither a picture nor a video",
        "m.jsonl:6: `../a.png` lies outside",
        "m.jsonl:7: `/etc/passwd` lies outside",
        "m.jsonl:8: `C:\\photos\\a.png` is a path of another system",
        "m.jsonl:9: `references` is 3",
        "m.jsonl:10: `c.png` does not exist",
        "m.jsonl:11: `repeats` is 0",
        "m.jsonl:12: The caption holds letters of another script (Cyrillic)",
        "m.jsonl:13: The prompt",
        "m.jsonl:14: this is not JSON",
        "m.jsonl:15: this is a list, not an object",
    ]
    assert [text for text in expected if text not in message] == []
    assert [line.split(": ")[0].strip() for line in message.splitlines()[1:]] == [
        f"m.jsonl:{number}" for number in range(2, 16)
    ]


def test_of_many_problems_twenty_are_listed_and_the_rest_is_counted(folder):
    path = folder.text("m.jsonl", jsonl(*[{**ROW, "media": f"{number}.png"} for number in range(50)]))
    message = refuse(path)
    assert "50 problems" in message
    assert "and 30 more" in message
    assert message.count("does not exist") == 20


def test_a_repeated_row_names_the_first(folder):
    folder.image("a.png")
    assert "m.jsonl:2: `a.png` repeats m.jsonl:1" in refuse(folder.text("m.jsonl", jsonl(ROW, ROW)))


def test_one_file_cannot_show_two_people(folder):
    folder.image("a.png")
    message = refuse(folder.text("m.jsonl", jsonl(ROW, {**ROW, "person": "bob"})))
    assert "m.jsonl:2: `a.png` shows `bob`, but `ann` at m.jsonl:1" in message


def test_the_same_media_may_have_two_captions(folder):
    folder.image("a.png")
    path = folder.text("m.jsonl", jsonl(ROW, {**ROW, "caption": "the woman smiles"}))
    assert len(read_samples(path)) == 2


def test_a_reference_of_another_person_is_refused(folder):
    for name in ("a.png", "b.png", "c.png"):
        folder.image(name)
    bob = {"media": "b.png", "caption": "a man nods", "person": "bob"}
    message = refuse(folder.text("m.jsonl", jsonl({**ROW, "references": ["b.png"]}, bob)))
    assert "m.jsonl:1: the reference `b.png` of `ann` belongs to `bob` by m.jsonl:2" in message
    rows = [{**ROW, "references": ["c.png"]}, {**bob, "references": ["c.png"]}]
    assert "m.jsonl:2: the reference `c.png` of `bob` belongs to `ann`" in refuse(folder.text("m.jsonl", jsonl(*rows)))


def test_unknown_columns_are_named_in_a_warning(folder, caplog):
    folder.image("a.png")
    with caplog.at_level(logging.WARNING):
        read_samples(folder.text("m.jsonl", jsonl({**ROW, "class_wrd": "woman", "score": 1})))
    assert "`class_wrd` (did you mean `class_word`?), `score`" in caplog.text


def test_without_people_each_file_is_its_own_person_with_a_warning(folder, caplog):
    folder.image("x/a.png")
    folder.image("x/b.png")
    rows = [{"media": f"x/{name}.png", "caption": "a woman waves"} for name in "ab"]
    with caplog.at_level(logging.WARNING):
        samples = read_samples(folder.text("m.jsonl", jsonl(*rows)))
    assert [sample.person for sample in samples] == ["x/a.png", "x/b.png"]
    assert "there is no `person`" in caplog.text


def test_a_trigger_in_a_caption_tells_the_class_word(folder):
    folder.image("a.png")
    folder.image("b.png")
    rows = [
        {**ROW, "caption": "a woman img waves"},
        {**ROW, "media": "b.png", "caption": "a woman and a woman img, too"},
    ]
    samples = read_samples(folder.text("m.jsonl", jsonl(*rows)))
    assert [(sample.caption, sample.class_word) for sample in samples] == [
        ("a woman waves", "woman"),
        ("a woman and a woman, too", "woman:2"),
    ]
    path = folder.text("m.jsonl", jsonl({**ROW, "caption": "a woman img waves", "class_word": "lady"}))
    assert "`class_word` is `lady`, but the trigger stands behind `woman`" in refuse(path)


def test_paths_may_start_from_another_folder(folder):
    media = folder.image("media/a.png")
    path = folder.text("lists/m.jsonl", jsonl(ROW))
    assert [sample.media for sample in read_samples(path, media_root=folder.path / "media")] == [media]
    assert "does not exist" in refuse(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.jsonl", "", "there are no rows"),
        ("m.csv", "media,caption\n", "there are no rows"),
        ("m.csv", "media;caption\na.png;hi\n", "m.csv:1: columns are not separated by commas"),
        ("m.csv", "media,caption\na.png,hello, you\n", "m.csv:2: there are 3 cells under 2 columns"),
        ("m.csv", 'media,caption\na.png,"hello\n', "this is not CSV"),
        ("m.csv", b"media,caption\na.png,caf\xe9\n", "is not UTF-8"),
        ("m.parquet", "no", "cannot be read as Parquet"),
        ("m.xlsx", "no", "is not a data set by its suffix"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(folder, name, text, message):
    folder.image("a.png")
    assert message in refuse(folder.text(name, text))


def test_a_class_word_that_the_caption_lacks_is_refused_with_its_line(folder):
    folder.image("a.png")
    message = refuse(folder.text("m.jsonl", jsonl({**ROW, "class_word": "man"})))
    assert 'm.jsonl:1: The caption "a woman waves" has the class word `man` not at all' in message


@pytest.mark.parametrize("name", ["media", "caption", "class_word"])
def test_a_cell_that_is_no_text_is_refused(folder, name):
    folder.image("a.png")
    assert f"m.jsonl:1: `{name}` is [3], which is no text" in refuse(folder.text("m.jsonl", jsonl({**ROW, name: [3]})))


def test_tables_with_empty_cells_are_read(folder):
    folder.image("a.png")
    rows = [{**ROW, "repeats": 2.0, "source": float("nan"), "licence": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder.path / "m.parquet")
    (sample,) = read_samples(folder.path / "m.parquet")
    assert (sample.repeats, sample.source, sample.licence) == (2, None, None)


def test_a_missing_file_is_refused(folder):
    assert "does not exist" in refuse(folder.path / "m.jsonl")


def test_a_media_path_with_a_zero_byte_or_of_great_length_is_a_problem_not_a_crash(folder):
    folder.image("a.png")
    path = folder.text("m.jsonl", jsonl({**ROW, "media": "a\0.png"}, {**ROW, "media": "x" * 5000 + ".png"}))
    assert "2 problems" in refuse(path)


def make_people(count):
    return [
        _plain(None) if False else Sample(media=Path(f"{i}.png"), caption="a man nods", person=f"p{i % count}")
        for i in range(3 * count)
    ]


def test_held_out_people_are_not_trained_on_and_do_not_change_with_more_data():
    samples = make_people(10)
    training, validation = split_people(samples, 3, seed=1)
    held_out = set(rows_by_person(validation))
    assert len(held_out) == 3
    assert not held_out & set(rows_by_person(training))
    assert len(training) + len(validation) == len(samples)
    assert set(rows_by_person(split_people(samples * 2, 3, seed=1)[1])) == held_out
    assert any(set(rows_by_person(split_people(samples, 3, seed=seed)[1])) != held_out for seed in range(5))


def test_somebody_must_be_left_to_train_on():
    with pytest.raises(ConfigError, match="there are 2 people"):
        split_people(make_people(2), 2)
