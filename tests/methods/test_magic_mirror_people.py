import torch
from miniature import PROMPT, make_face, sample


def test_a_person_is_encoded_once_as_long_as_no_weight_changes(pipe, mirror):
    calls = []
    mirror.face_encoder.register_forward_hook(lambda *_args: calls.append(1))
    first = mirror.encode([make_face(0)])
    with mirror.identity([make_face(0)]):  # the same content in another record
        sample(pipe, **mirror.prompt(PROMPT))
    assert mirror.encode([make_face(0)]) is first
    assert len(calls) == 1
    mirror.encode([make_face(1)])
    assert len(calls) == 2
    with torch.no_grad():
        mirror.identity_perceiver.token_norm.bias.add_(1)
    again = mirror.encode([make_face(0)])
    assert len(calls) == 3
    assert not torch.equal(again.id_tokens, first.id_tokens)
