"""F_fuse (Eq. 4 of Magic Mirror, arXiv:2501.03931v1): identity tokens are fused into the class word's text embedding.

It changes the positions of the class word only, works on every prompt of a batch separately, and returns a new tensor.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from likeness.errors import PromptError


class FuseMLP(nn.Module):
    """LayerNorm and a two-layer MLP with GELU, with an optional residual.

    Shapes:
        x: (..., input_width)
        returns: (..., width)
    """

    def __init__(self, input_width: int, width: int, *, is_residual: bool) -> None:
        super().__init__()
        self.is_residual = is_residual
        self.layernorm = nn.LayerNorm(input_width)
        self.fc1 = nn.Linear(input_width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        output = self.fc2(gelu(self.fc1(self.layernorm(x))))
        return output + x if self.is_residual else output


class IdentityFuse(nn.Module):
    """x_fuse = F_fuse(x_id, q_txt), and x_hat = m x_fuse + (1 - m) x_txt.

    The two steps are those of PhotoMaker's fuse module, in the text encoder's space. Deviation: PhotoMaker returns
    the output of the last LayerNorm. Here it is added to the text embedding, and the LayerNorm's gain starts at zero,
    so that training starts from the base prompt (docs/papers/magic_mirror.md, row 5).

    Shapes:
        text: (batch, text_tokens, text_width)
        mask: (batch, text_tokens), bool: m, the positions of the class word
        identity: (batch, identity_tokens, identity_width)
        returns: (batch, text_tokens, text_width), a new tensor
    """

    def __init__(self, text_width: int, identity_width: int) -> None:
        super().__init__()
        self.mlp1 = FuseMLP(text_width + identity_width, text_width, is_residual=False)
        self.mlp2 = FuseMLP(text_width, text_width, is_residual=True)
        self.layer_norm = nn.LayerNorm(text_width)
        nn.init.zeros_(self.layer_norm.weight)

    def forward(self, text: Tensor, mask: Tensor, identity: Tensor, *, scale: float = 1.0) -> Tensor:
        if scale == 0 or not mask.any():
            return text
        rows, columns = mask.nonzero(as_tuple=True)
        words = text[rows, columns].to(self.layer_norm.weight)  # (marked, text_width)
        tokens = identity[rows, identity_token_indices(mask, identity.shape[1])[rows, columns]]
        fused = self.mlp1(torch.cat([words, tokens.to(words.dtype)], dim=-1)) + words
        residual = self.layer_norm(self.mlp2(fused))
        return text.index_put((rows, columns), (words + scale * residual).to(text))


def identity_token_indices(mask: Tensor, identity_tokens: int) -> Tensor:
    """Index of the identity token for each marked position: copy number j of the class word takes token j.

    Shapes:
        mask: (batch, text_tokens), bool
        returns: (batch, text_tokens), int64; valid where the mask is set

    Raises:
        PromptError: The number of marked positions in a row is not a multiple of the number of identity tokens.
    """
    marked = mask.sum(dim=1)
    if (marked % identity_tokens).any():
        raise PromptError(
            f"The mask marks {marked.tolist()} positions, not a multiple of {identity_tokens} identity tokens. "
            f"Tokenize the prompt for as many references as the identity has: two positions for each."
        )
    pieces = (marked // identity_tokens).clamp(min=1)
    return (mask.cumsum(dim=1) - 1).clamp(min=0) // pieces[:, None]
