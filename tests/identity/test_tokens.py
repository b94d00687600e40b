import torch

from likeness.methods.magic_mirror import MagicMirrorIdentity


def test_rows_are_taken_of_every_field_and_numbers_of_people_stay():
    people = MagicMirrorIdentity(id_tokens=torch.randn(4, 6, 3), face_tokens=torch.randn(4, 8, 5), sizes=(4, 2))
    few = people.rows(torch.tensor([3, 1]))
    assert torch.equal(few.id_tokens, people.id_tokens[[3, 1]])
    assert torch.equal(few.face_tokens, people.face_tokens[[3, 1]])
    assert few.sizes == (4, 2)
    assert len(few) == 2
