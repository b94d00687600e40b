import pytest

from likeness.errors import ConfigError, FaceError, PromptError
from likeness.faces import read_face
from likeness.generation import GenerationRequest
from likeness.generation.inputs.multi_person import assign_regions, person_boxes
from likeness.generation.inputs.prompts import check_prompt, place_trigger
from likeness.generation.outputs.similarity import faces_by_box, measure_clip
from likeness.puppets import sample_image, sample_person, sample_two_person_clip

BOTH = "a man img1 nods and a woman img2 smiles"
HALVES = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]


def request(face_of, prompt=BOTH, **more):
    return GenerationRequest(prompt=prompt, people=((face_of(0),), (face_of(1),)), **more)


def test_two_people_stand_side_by_side_and_each_is_measured(likeness, face_of, tmp_path):
    clip = likeness.generate(BOTH, [[face_of(0)], [face_of(1)]], steps=2, frames=9)
    assert clip.frames.shape == (9, 64, 128, 3)
    assert len(clip.people) == 2
    assert [len(person.distances) for person in clip.people] == [9, 9]
    assert clip.settings["regions"]["own_positions"] is True
    record = clip.to_dict()
    assert len(record["people"]) == 2
    assert len(record["settings"]["other_references"]) == 1
    assert clip.save(tmp_path / "both.mp4").exists()


def test_numbers_of_people_and_of_triggers_have_to_agree(likeness, face_of):
    with pytest.raises(PromptError, match=r"names 1 person, but faces of 2.*Try: \"a man img1 nods and a woman img2"):
        likeness.generate("a man img nods and a woman smiles", [[face_of(0)], [face_of(1)]])
    with pytest.raises(PromptError, match=r"names 2 people, but only one is expected"):
        likeness.generate(BOTH, [face_of(0)])
    with pytest.raises(ConfigError, match="cannot place them in regions"):
        likeness.generate(BOTH, [[face_of(0)], [face_of(1)]], regions=HALVES)
    with pytest.raises(ConfigError, match="one person is shown"):
        likeness.generate("a man img nods", [face_of(0)], regions=HALVES[:1])
    with pytest.raises(ConfigError, match="No face was given"):
        likeness.generate(BOTH, [[face_of(0)], []])


def test_a_better_sentence_is_proposed_for_two():
    assert place_trigger("a man nods and a woman img smiles", 2) == "a man img1 nods and a woman img2 smiles"
    assert place_trigger("they nod", 2) == "a person img1 and a person img2 nod"
    check_prompt(BOTH, 2)


def test_who_is_named_first_is_expected_at_the_left(face_of):
    assert person_boxes(request(face_of)) == HALVES
    assert person_boxes(request(face_of, "a woman img2 smiles at a man img1")) == HALVES[::-1]
    free = assign_regions(request(face_of), own_positions=False)
    assert free.regions is not None
    assert free.regions.cross_region_weight == 1


def test_each_is_held_against_their_own_reference():
    """True frames of two puppets: both are nearer themselves, and a frame is as good as its worse face."""
    people, faces = [], []
    for seed in range(20, 40):
        person = sample_person(seed)
        try:
            faces.append(read_face(sample_image(seed, person=person, size_px=256).frames[0]))
        except FaceError:
            continue
        people.append(person)
        if len(people) == 2:
            break
    for seed in range(12):
        frames = sample_two_person_clip(
            seed, people=(people[0], people[1]), actions=("look", "smile"), num_frames=1
        ).frames
        if None not in faces_by_box(frames[0], HALVES):
            break
    right = GenerationRequest(prompt=BOTH, people=((faces[0],), (faces[1],)))
    wrong = GenerationRequest(prompt=BOTH, people=((faces[1],), (faces[0],)))
    joint, each = measure_clip(frames, right.people, person_boxes(right))
    assert joint.mean_distance == max(one.mean_distance for one in each)
    for mine, other in zip(each, measure_clip(frames, wrong.people, person_boxes(wrong))[1], strict=True):
        assert mine.mean_distance < other.mean_distance
