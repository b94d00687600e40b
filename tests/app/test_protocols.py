from collections import Counter

import pytest

from likeness.app.bench.protocols import (
    FOLDER,
    GROUPS,
    build_cases,
    choose_people,
    fill_template,
    group_of,
    protocol_names,
    read_prompts,
    read_protocol,
)
from likeness.errors import ConfigError
from likeness.identity.prompt import split_prompt
from likeness.puppets import GROUPS as PUPPET_GROUPS

LISTS = sorted(path.stem for path in (FOLDER / "lists").glob("*.toml"))


def full(name):
    """As many people as the protocol wants."""
    protocol = read_protocol(name)
    groups = protocol.groups or {"person": protocol.identities}
    return protocol, {f"{group}_{n}".replace(" ", "_"): group for group, count in groups.items() for n in range(count)}


def test_groups_are_those_of_puppets():
    assert set(GROUPS) == set(PUPPET_GROUPS)


@pytest.mark.parametrize(
    ("name", "people", "videos"),
    [("magic_mirror", 50, 200), ("fantasy_id", 50, 50), ("opens2v_human", 30, 60), ("tiny", 14, 56)],
)
def test_counts_are_the_papers(name, people, videos):
    protocol, groups = full(name)
    assert protocol.num_identities == len(groups) == people
    cases = build_cases(protocol, groups)
    assert len(cases) == len({case.name for case in cases}) == videos


def test_magic_mirror_has_seven_groups_four_prompts_and_up_to_four_references():
    protocol, groups = full("magic_mirror")
    assert set(protocol.groups) == set(GROUPS)
    assert protocol.max_references == 4
    assert set(Counter(case.identity for case in build_cases(protocol, groups)).values()) == {4}


def test_forty_and_forty_prompts():
    protocol, groups = full("prompt_sets")
    cases = build_cases(protocol, groups)
    assert Counter(case.name.split("_")[0] for case in cases) == {"character": 40, "action": 40}
    assert max(Counter(case.identity for case in cases).values()) <= 4


def test_cases_of_opens2v_are_called_as_there():
    names = [case.name for case in build_cases(*full("opens2v_human"))]
    assert names == [f"singleface_{n}" for n in range(1, 31)] + [f"singlehuman_{n}" for n in range(1, 31)]


@pytest.mark.parametrize("name", protocol_names())
def test_every_prompt_can_be_used_and_fits_its_person(name):
    protocol, groups = full(name)
    for case in build_cases(protocol, groups):
        before, word, _ = split_prompt(case.prompt)
        assert f"{before} {word}".endswith(groups[case.identity])
        assert "{" not in case.prompt


@pytest.mark.parametrize("name", LISTS)
def test_no_sentence_stands_twice(name):
    texts = [text for text, _ in read_prompts(name)]
    assert len(texts) == len(set(texts))
    assert all(groups <= {*GROUPS, "person"} for _, groups in read_prompts(name))


def test_sentences_are_used_in_turn():
    protocol, groups = full("magic_mirror")
    men = [case.prompt for case in build_cases(protocol, groups) if groups[case.identity] == "man"]
    assert len(men) == len(set(men)) == 40


def test_words_for_people():
    assert fill_template("{who} nods {his} head", "elderly man") == "an elderly man img nods his head"
    assert fill_template("{who} nods {his} head", "girl") == "a girl img nods her head"
    assert [group_of(name) for name in ("Elderly_Woman", "baby", "anna")] == ["elderly woman", "baby", None]


def test_fewer_people_are_reported_and_can_be_allowed():
    protocol, groups = full("tiny")
    fewer = {name: group for name, group in groups.items() if group != "baby"}
    with pytest.raises(ConfigError, match=r"requires 14 people, and there are 12: 0 of 2 baby.*--allow-fewer"):
        choose_people(protocol, fewer)
    assert choose_people(protocol, fewer, allow_fewer=True) == fewer
    with pytest.raises(ConfigError, match="There are no people"):
        choose_people(protocol, {}, allow_fewer=True)
    more = groups | {"man_9": "man"}
    assert choose_people(protocol, more) == groups


def test_protocols_that_contradict_themselves_are_refused(tmp_path):
    text = 'title = "t"\nsource = "s"\nmax_references = 1\nidentities = 2\nlists = ["faces"]\n'
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match="prompts_per_identity"):
        read_protocol(str(tmp_path / "own.toml"))
    with pytest.raises(ConfigError, match="Did you mean `fantasy_id`"):
        read_protocol("fantasyid")


@pytest.mark.parametrize(
    "field", ["{zzz}", "{0}", "{", "{who.__class__}", "{who:>99999999999}", "{who!r:>9}", "{his[0]}"]
)
def test_fields_of_sentences_are_plain_and_known(tmp_path, field):
    """A width would fill the memory before anything is checked."""
    file = tmp_path / "sentences.toml"
    text = f"{{who}} nods beside {field}" if "who" not in field else f"{field} nods"
    file.write_text(f"[[prompts]]\ngroups = ['woman']\ntexts = ['{text}']\n")
    with pytest.raises(ConfigError, match="has other fields than"):
        read_prompts(str(file))
