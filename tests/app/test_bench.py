import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from likeness.app.bench.create import create_bench
from likeness.app.bench.manifest import Bench, run_lock
from likeness.app.bench.protocols import Protocol
from likeness.app.bench.report import cluster_bootstrap_mean, make_bench_report, write_bench_page
from likeness.app.bench.run import run_bench, score_bench
from likeness.cli import main
from likeness.errors import ConfigError, FaceError, FileWriteError, LockedError
from likeness.evaluation.inputs.reference_matching import read_cases
from likeness.generation import Likeness
from likeness.generation.inputs.settings import GenerationSettings
from likeness.media import write_image, write_video
from likeness.puppets import sample_image, sample_person
from likeness.records import Clip

SMALL = {"max_references": 1, "lists": ("puppets",), "prompts_per_identity": 2, "title": "t", "source": "s"}
SENTENCES = '[[prompts]]\ngroups = ["woman"]\ntexts = ["{who} nods", "{who} smiles in a park"]\n'


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One drawn man in a folder of his group, and beside him a picture of nobody."""
    folder = tmp_path_factory.mktemp("pictures")
    portrait = sample_image(2, person=sample_person(2, "woman"), size_px=256, max_yaw_deg=5).frames[0]
    write_image(folder / "woman" / "anna" / "a.png", portrait)
    return folder


@pytest.fixture(scope="module")
def made(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "bench"
    sentences = folder.with_name("sentences.toml")  # Short ones: the checkpoint of the tests reads 16 tokens.
    sentences.write_text(SENTENCES)
    protocol = Protocol(**SMALL | {"lists": (str(sentences),)}, groups={"woman": 1})
    create_bench(folder, "own", protocol, pictures, seed=5)
    return folder


@pytest.fixture
def bench(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bench")


@pytest.fixture(scope="module")
def likeness(checkpoint):
    return Likeness.load(backbone=checkpoint)


def test_a_benchmark_holds_copies_checksums_and_seeds(bench):
    loaded = Bench.load(bench)
    assert [(case.name, case.seed) for case in loaded.cases] == [("anna_1", 5), ("anna_2", 6)]
    assert loaded.is_complete
    assert loaded.cases[0].prompt.startswith("a woman img ")


def test_other_systems_read_the_cases_in_the_layout_of_opens2v(bench):
    cases = read_cases(bench / "cases.json", bench)
    references, prompt = cases["anna_1"]
    assert [path.name for path in references] == ["1.png"]
    assert "img" not in prompt


def test_pictures_without_a_face_are_listed_or_left_out(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    write_image(folder / "woman" / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    protocol = Protocol(**SMALL, groups={"woman": 1})
    with pytest.raises(FaceError, match=r"1 pictures cannot be references:\n.*wall\.png.*\n.*--skip-bad"):
        create_bench(tmp_path / "bench", "own", protocol, folder)
    assert not (tmp_path / "bench" / "bench.json").exists()
    kept = create_bench(tmp_path / "bench", "own", protocol, folder, skip_bad=True)
    assert [one.name for one in kept.identities] == ["anna"]


def test_unusable_folders_are_refused(pictures, tmp_path, bench):
    protocol = Protocol(**SMALL, groups={"woman": 2})
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path / "absent", "is no folder"),
        (tmp_path / "empty", "holds no pictures"),
        (pictures / "woman", "needs groups"),
        (pictures, "1 of 2 woman"),
        (None, "needs `--pictures FOLDER`"),
    ):
        with pytest.raises(ConfigError, match=words):
            create_bench(tmp_path / "new", "own", protocol, folder)
    with pytest.raises(ConfigError, match="already holds a bench"):
        create_bench(bench, "own", protocol, pictures)
    assert not create_bench(tmp_path / "new", "own", protocol, pictures, allow_fewer=True).is_complete


def test_changed_pictures_are_noticed(bench):
    path = bench / "references" / "anna" / "1.png"
    write_image(path, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ConfigError, match="another file than when"):
        Bench.load(bench)
    path.unlink()
    with pytest.raises(ConfigError, match="is gone"):
        Bench.load(bench)


def test_a_run_goes_on_where_it_stopped_and_nothing_is_made_twice(bench, likeness):
    settings = likeness.settings(steps=1, guidance=1.0, frames=1)

    def stop(done, _total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(bench, likeness, system="a", settings=settings, on_case=stop)
    first = bench / "runs" / "a" / "videos" / "anna_1.mp4"
    date = first.stat().st_mtime_ns
    record = first.with_name("anna_2.json")
    record.write_text('{"settings": {"be')  # Killed while writing.
    assert run_bench(bench, likeness, system="a", settings=settings) == 1
    assert first.stat().st_mtime_ns == date
    assert json.loads(record.read_text())["settings"]["bench"]["case"] == "anna_2"
    assert run_bench(bench, likeness, system="a", settings=settings) == 0
    with pytest.raises(ConfigError, match=r"began otherwise: `settings` was .*--name"):
        run_bench(bench, likeness, system="a", settings=likeness.settings(steps=2, frames=1))

    manifest = bench / "bench.json"
    manifest.write_text(manifest.read_text().replace('"seed": 6', '"seed": 7'))
    with pytest.raises(ConfigError, match=r"1 cases were changed .*anna_2.*--remake"):
        run_bench(bench, likeness, system="a", settings=settings)
    assert run_bench(bench, likeness, system="a", settings=settings, regenerate=True) == 1

    result = score_bench(bench, "a")
    assert [video.identity for video in result.videos] == ["anna", "anna"]
    report = make_bench_report(bench)
    write_bench_page(bench / "report.html", Bench.load(bench), report)
    assert "2 videos of each system" in (bench / "report.html").read_text()
    json.dumps(report.to_dict(), allow_nan=False)
    first.unlink()
    with pytest.raises(ConfigError, match="lacks 1 of 2 videos"):
        score_bench(bench, "a")


def test_a_benchmark_without_runs_has_no_report(bench):
    with pytest.raises(ConfigError, match="has no measured run"):
        make_bench_report(bench)


def test_intervals_are_over_people_not_over_videos():
    people = {f"{who}_{n}": who for who in "abcdef" for n in range(20)}
    values = {name: float("abcdef".index(who)) for name, who in people.items()}
    found = cluster_bootstrap_mean(values, people)
    assert found.value == 2.5
    # The mean of six people scatters by 1.708 / sqrt(6); 120 videos taken singly would claim 0.16.
    assert_allclose((found.high - found.low) / (2 * 1.96), 1.708 / 6**0.5, rtol=0.15)
    assert np.isnan(cluster_bootstrap_mean({"a_0": 1.0}, people).low)


@pytest.mark.slow
def test_two_drawn_people_from_create_to_report(tmp_path, capsys):
    own = tmp_path / "two.toml"
    own.write_text(
        'title = "Two"\nsource = "test"\ngroups = { man = 1, woman = 1 }\nmax_references = 1\nlists = ["puppets"]\n'
        "prompts_per_identity = 2\ndraws_people = true\n"
    )
    folder = str(tmp_path / "bench")
    assert main(["bench", "create", str(own), "-o", folder]) == 0
    for name, scale in (("with", "1"), ("without", "0")):
        assert main(["bench", "run", folder, "--name", name, "--steps", "4", "--identity-scale", scale]) == 0
    capsys.readouterr()
    assert main(["bench", "report", folder, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["means"]) == {"with", "without"}
    assert report["counts"]["with"]["face_rate"] == 4
    study = ["study", "create", *(f"{n}={folder}/runs/{n}/videos" for n in ("with", "without"))]
    assert main([*study, "--references", folder, "--manifest", f"{folder}/cases.json", "-o", str(tmp_path / "s")]) == 0


def test_what_lies_in_the_folder_of_a_new_benchmark_is_never_removed(pictures, tmp_path):
    mine = shutil.copytree(pictures, tmp_path / "bench" / "references")
    before = sorted(mine.rglob("*"))
    protocol = Protocol(**SMALL, groups={"woman": 1})
    for source in (mine, pictures):
        with pytest.raises(ConfigError, match="exists and would be overwritten"):
            create_bench(tmp_path / "bench", "own", protocol, source)
    assert sorted(mine.rglob("*")) == before
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match="cannot be written: Not a directory"):
        create_bench(tmp_path / "file" / "bench", "own", protocol, pictures)
    with pytest.raises(ConfigError, match="1 of 2 woman"):
        create_bench(tmp_path / "new", "own", Protocol(**SMALL, groups={"woman": 2}), pictures)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [
        ".create.lock"
    ]  # Nobody's pictures are left behind.


def test_a_page_never_replaces_the_benchmark(bench, capsys):
    before = {path: path.read_bytes() for path in bench.rglob("*") if path.is_file()}
    for page in (
        "bench.html",
        "Bench.HTML",
        "cases.html",
        "runs/mine/evaluation.html",
        "references/anna/1.html",
    ):
        assert main(["bench", "report", str(bench), "-o", str(bench / page)]) == 2
        assert "would overwrite" in capsys.readouterr().err
    assert main(["bench", "report", str(bench), "-o", str(bench / "references" / "anna" / "1.png")]) == 2
    assert "ends in .html" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in bench.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", ".hidden"])
def test_a_run_is_called_as_a_folder_can_be(bench, name):
    with pytest.raises(ConfigError, match="Use a plain name"):
        score_bench(bench, name)


def test_a_run_with_a_bad_video_says_so(bench, capsys):
    frames = sample_image(2, person=sample_person(2, "woman"), size_px=96).frames.repeat(2, axis=0)
    videos = bench / "runs" / "mine" / "videos"
    write_video(videos / "anna_1.mp4", frames, 8)
    (videos / "anna_2.mp4").write_bytes(b"no video")
    assert main(["bench", "score", str(bench), "mine", "--json"]) == 3
    output = capsys.readouterr()
    assert "anna_2.mp4" not in output.err  # Who reads JSON finds it there.
    printed = json.loads(output.out)
    assert (printed["videos"], printed["failed"]) == (2, 1)
    result = json.loads((bench / "runs" / "mine" / "evaluation.json").read_text())
    assert "img" not in result["videos"][0]["prompt"].split()


class FlameModel:
    """In the place of a method that reads vertices in FLAME's topology; keeps what it is asked for."""

    def __init__(self):
        self.preset, self.weights, self.asked = SimpleNamespace(name="research"), {}, []
        self.method = SimpleNamespace(shape_source=None, config={"num_vertices": (5023, 1256, 314)})

    def generate_many(self, requests, settings, *, is_measured):
        assert not is_measured
        self.asked.append(settings.shape)
        frames = np.zeros((1, 32, 32, 3), np.uint8)
        recorded = {"seed": 1, "shape": settings.shape}
        prompt = requests[0].prompt
        return [Clip(frames=frames, fps=8.0, prompt=prompt, settings=recorded, similarity=None, references=())]


def head():
    """Vertices as a FLAME fit gives them: a head of the size of one, in meters."""
    random = np.random.default_rng(0).normal(size=(5023, 3))
    return random / np.linalg.norm(random, axis=1, keepdims=True) * [0.08, 0.12, 0.1]


def test_vertices_beside_a_picture_are_given_with_it(pictures, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("likeness.app.bench.create.load_source", lambda name: checked.append(name))
    checked = []
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    np.save(folder / "woman" / "anna" / "a.npy", head())
    protocol = Protocol(**SMALL, groups={"woman": 1})
    made = create_bench(tmp_path / "bench", "own", protocol, folder)
    assert checked == [f"flame:{folder / 'woman' / 'anna' / 'a.npy'}"]
    assert set(made.identities[0].shapes) == {"1.npy"}
    assert set(made.identities[0].references) == {"1.png"}
    settings, model = GenerationSettings(steps=1, guidance=1.0, frames=1), FlameModel()
    assert run_bench(tmp_path / "bench", model, system="a", settings=settings) == 2
    assert model.asked == [f"flame:{tmp_path / 'bench' / 'references' / 'anna' / '1.npy'}"] * 2
    record = json.loads((tmp_path / "bench" / "runs" / "a" / "videos" / "anna_1.json").read_text())
    assert record["settings"]["shape"] == "flame:references/anna/1.npy"
    other = FlameModel()
    other.method.config["num_vertices"] = (2562, 641, 161)
    run_bench(tmp_path / "bench", other, system="b", settings=settings)
    assert other.asked == [None, None]
    assert "those beside the pictures are not used" in caplog.text
    np.save(tmp_path / "bench" / "references" / "anna" / "1.npy", 2 * head())
    with pytest.raises(ConfigError, match=r"1\.npy is another file than when"):
        Bench.load(tmp_path / "bench")


def test_vertices_of_some_people_or_of_a_wrong_kind_are_refused(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    shutil.copytree(folder / "woman" / "anna", folder / "woman" / "berta")
    shape = folder / "woman" / "anna" / "a.npy"
    protocol = Protocol(**SMALL, groups={"woman": 2})
    np.save(shape, np.zeros((468, 3)))
    with pytest.raises(ConfigError, match="468"):
        create_bench(tmp_path / "bench", "own", protocol, folder)
    np.save(shape, head())
    shape.with_suffix(".ply").write_text("ply")
    with pytest.raises(ConfigError, match="both lie beside"):
        create_bench(tmp_path / "bench", "own", protocol, folder)


def test_only_one_process_makes_a_run(bench):
    with run_lock(bench, "a"), pytest.raises(LockedError, match="is used by process"):
        run_bench(bench, FlameModel(), system="a", settings=GenerationSettings(steps=1, guidance=1.0, frames=1))
