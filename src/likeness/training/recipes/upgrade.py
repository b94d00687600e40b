"""Upgrades recipes and records of earlier versions: one table of renamed keys and values.

An old recipe is recognized by a name that only old recipes have. That matters for one key: `teacher` was what is now
`guidance_teacher`, and today `teacher` is what was `mentor`.
"""

from typing import Any

from likeness.errors import ConfigError

RECIPE_KEYS = {
    "pictures": "images",
    "unseen": "validation",
    "duos": "two_person",
    "across": "cross_region_weight",
    "teacher": "guidance_teacher",
    "mentor": "teacher",
}
"""Keys of a recipe."""
STAGE_KEYS = {
    "picture_every": "image_every",
    "mentor_scale": "teacher_scale",
    "rollout_mentor": "on_policy_distillation_weight",
}
"""Keys of a stage."""
RECIPE_VALUES = {"kind": {"mirror": "magic_mirror", "duos": "two_person", "distill": "recognizer"}}
DATA_SET_VALUES = {"kind": {"pictures": "images", "duos": "two_person"}}
"""Values of a data set such as `[faces]`."""
STAGE_VALUES = {"data": {"pictures": "images"}}
_OLD_ONLY_KEYS = RECIPE_KEYS.keys() - {"teacher"}


def is_old(values: dict[str, Any]) -> bool:
    """Whether the keys or the kind of a recipe are of an earlier version."""
    return not _OLD_ONLY_KEYS.isdisjoint(values) or values.get("kind") in RECIPE_VALUES["kind"]


def upgrade(values: dict[str, Any], *, where: str) -> tuple[dict[str, Any], list[str]]:
    """Rename the old keys and values of a recipe.

    Args:
        values: The plain values of a recipe of any version; not changed.
        where: Their origin, for messages.

    Returns:
        The upgraded values, and a description of each renaming.

    Raises:
        ConfigError: A setting is there under its old and its new name, or `teacher` can mean either.
    """
    renamed: list[str] = []
    keys = RECIPE_KEYS if is_old(values) else {}
    if "teacher" in values and keys:
        _check_teacher(values, where)
    result = _rename_keys(values, keys, "", renamed, where)
    result = _rename_values(result, RECIPE_VALUES, "", renamed)
    for name, value in result.items():
        if name == "stages" and isinstance(value, list):
            result[name] = [_upgrade_stage(stage, f"stages.{i}.", renamed, where) for i, stage in enumerate(value)]
        elif isinstance(value, dict) and "kind" in value:
            result[name] = _rename_values(value, DATA_SET_VALUES, f"{name}.", renamed)
    return result, renamed


def upgrade_override(override: str) -> str:
    """An `a.b=1` override with today's key. `teacher` keeps its meaning of today."""
    path, equals, value = override.partition("=")
    names = [name.strip() for name in path.split(".")]
    if names[0] != "teacher":
        names[0] = RECIPE_KEYS.get(names[0], names[0])
    if names[0] == "stages":
        names[2:3] = [STAGE_KEYS.get(name, name) for name in names[2:3]]
    return f"{'.'.join(names)}{equals}{value}"


def upgrade_record(record: dict[str, Any], *, where: str) -> dict[str, Any]:
    """A run's record (`resume.RECORD_FILE`) with today's names.

    The renderer has changed since the old names were in use, so data of an old record without a renderer version are
    marked as unknown, which differs from every version.
    """
    settings, renamed = upgrade(record["settings"], where=where)
    if not renamed:
        return record
    keys = RECIPE_KEYS if is_old(record["settings"]) else {}
    inputs, data = ({keys.get(k, k): v for k, v in record.get(part, {}).items()} for part in ("inputs", "data"))
    sets = [name for name, value in settings.items() if isinstance(value, dict) and "count" in value]
    return {**record, "settings": settings, "inputs": inputs, "data": {**dict.fromkeys(sets, "unknown"), **data}}


def _check_teacher(values: dict[str, Any], where: str) -> None:
    stages = [stage for stage in values.get("stages", ()) if isinstance(stage, dict)]
    if "guidance_teacher" in values or any(stage.get("teacher_scale") for stage in stages):
        old = ", ".join(sorted(_OLD_ONLY_KEYS & values.keys())) or "kind"
        raise ConfigError(
            f"{where}: `teacher` is ambiguous, because the recipe mixes names of an earlier version ({old}) with those "
            "of this version. Use the names of one."
        )


def _upgrade_stage(stage: Any, prefix: str, renamed: list[str], where: str) -> Any:
    if not isinstance(stage, dict):
        return stage
    stage = _rename_keys(stage, STAGE_KEYS, prefix, renamed, where)
    return _rename_values(stage, STAGE_VALUES, prefix, renamed)


def _rename_keys(
    values: dict[str, Any], keys: dict[str, str], prefix: str, renamed: list[str], where: str
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        new = keys.get(name, name)
        if new in result or (new != name and new in values and new not in keys):
            raise ConfigError(f"{where}: `{prefix}{new}` is set twice, once by its old name. Keep `{prefix}{new}`.")
        if new != name:
            renamed.append(f"`{prefix}{name}` as `{prefix}{new}`")
        result[new] = value
    return result


def _rename_values(
    values: dict[str, Any], table: dict[str, dict[str, str]], prefix: str, renamed: list[str]
) -> dict[str, Any]:
    result = dict(values)
    for name, changes in table.items():
        value = values.get(name)
        if isinstance(value, str) and value in changes:
            result[name] = changes[value]
            renamed.append(f'`{prefix}{name} = "{value}"` as "{changes[value]}"')
    return result
