"""Comparisons of sets of features in float64: Frechet distances and the Inception Score."""

import numpy as np

CONSISID_FRAMES = 16
"""Frames that ConsisID's script samples, evenly spaced."""
NUM_SPLITS = 10
"""Contiguous parts of all frames over which EvalCrafter averages the Inception Score."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Covariances have the divisor n - 1; with fewer rows than columns they are singular, which biases the distance
    upwards. A set of one row has no covariance: use `mean_squared_distance`.

    Shapes:
        first, second: (samples, width), at least two samples each
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if min(len(first), len(second)) < 2:
        return float("nan")
    gap = first.mean(axis=0) - second.mean(axis=0)
    spread_a, spread_b = np.atleast_2d(np.cov(first.T)), np.atleast_2d(np.cov(second.T))
    # tr (C1 C2)^(1/2) by the symmetric A C2 A with A A = C1, whose root is real.
    values, vectors = np.linalg.eigh(spread_a)
    root_a = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.linalg.eigvalsh(root_a @ spread_b @ root_a)
    cross = np.sqrt(np.clip(inner, 0, None)).sum()
    return float(max(0.0, gap @ gap + np.trace(spread_a) + np.trace(spread_b) - 2 * cross))


def mean_squared_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """ConsisID's "face FID": frame by frame against one reference, so both covariances vanish and the means remain.

    Shapes:
        features: (frames, width), NaN where there is no face
        reference: (width,)
    """
    places = np.linspace(0, len(features) - 1, CONSISID_FRAMES, dtype=int)
    squares = ((features[places].astype(np.float64) - reference) ** 2).sum(axis=1)
    found = squares[np.isfinite(squares)]
    return float(found.mean()) if len(found) else float("nan")


def inception_score(probabilities: np.ndarray, num_splits: int = NUM_SPLITS) -> float:
    """Mean over contiguous splits of exp(mean over the split's frames of KL(p(y|x) || p(y))).

    Shapes:
        probabilities: (frames, classes), rows sum to 1
    """
    probabilities = np.asarray(probabilities, np.float64)
    if len(probabilities) < num_splits:
        return float("nan")
    scores = []
    for split in np.array_split(probabilities, num_splits):
        marginal = split.mean(axis=0, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(split > 0, split * (np.log(split) - np.log(marginal)), 0.0)
        scores.append(np.exp(terms.sum(axis=1).mean()))
    return float(np.mean(scores))
