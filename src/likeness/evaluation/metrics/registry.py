"""Every metric by name, in the order of tables; docs/metrics.md has the formulas."""

import difflib
from collections.abc import Sequence

from likeness.errors import ConfigError, WeightsError
from likeness.evaluation.features.registry import FEATURES, sort_by_dependency
from likeness.evaluation.metrics.base import Metric
from likeness.evaluation.metrics.identity import IDENTITY_METRICS
from likeness.evaluation.metrics.motion import MOTION_METRICS
from likeness.evaluation.metrics.published import PUBLISHED_METRICS
from likeness.weights import entry, locate

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*IDENTITY_METRICS, *MOTION_METRICS, *PUBLISHED_METRICS)
}


def select(names: Sequence[str] | None) -> list[Metric]:
    """The metrics called `names`, in the order of tables; all where None.

    Raises:
        ConfigError: there is no such metric.
    """
    for name in names or ():
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=1)
            advice = f"Did you mean `{close[0]}`?" if close else f"Use some of {', '.join(METRICS)}."
            raise ConfigError(f"There is no metric `{name}`. {advice}")
    return [metric for name, metric in METRICS.items() if names is None or name in names]


def reason_unavailable(metric: Metric, *, has_prompts: bool, has_references: bool) -> str | None:
    """Why a metric cannot be measured, and how to change that; None if it can be measured."""
    if metric.needs_prompt and not has_prompts:
        return "It compares a video with its prompt, and no prompts were given."
    if metric.needs_references and not has_references:
        return "It compares a video with reference pictures, and none were given."
    missing = []
    for feature in sort_by_dependency(metric.required_features):
        for name in FEATURES[feature].weights:
            try:
                locate(name)
            except WeightsError:
                missing.append(name)
    if not missing:
        return None
    named = " and ".join(f"`{name}`" for name in dict.fromkeys(missing))
    remedies = " ".join(dict.fromkeys(entry(name).remedy for name in missing))
    return f"Its weights {named} are not installed. {remedies}"
