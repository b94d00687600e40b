"""Sends the metrics of a run to TensorBoard, trackio or Weights & Biases, in addition to `log.jsonl`.

The trackers are extras of the package and are imported when a run uses them. A run that is continued goes on in the
same record of the tracker.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from likeness.errors import ConfigError
from likeness.training.engine import distributed

LogTarget = Literal["tensorboard", "trackio", "wandb"]
PROJECT = "likeness"
"""Name of the project in trackers that group runs."""


class LogWriter(Protocol):
    """Gets every line of the log."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step."""
        ...

    def close(self) -> None:
        """Write what is still in memory."""
        ...


class TensorBoardWriter:
    """Event files in `STAGE/tensorboard`; `tensorboard --logdir runs/NAME` shows all stages."""

    def __init__(self, settings: Any, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        del settings
        # Steps that the run repeats replace those that a killed one had logged.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class TrackerWriter:
    """trackio or wandb, which have the same functions: one run for each stage."""

    def __init__(self, name: LogTarget, settings: Any, folder: Path, first_step: int) -> None:
        del first_step
        self.module: Any = importlib.import_module(name)
        options: dict[str, Any] = {
            "project": PROJECT,
            "name": f"{folder.absolute().parent.name}-{folder.name}",
            "config": settings.model_dump(mode="json"),
            "resume": "allow",
        }
        if name == "wandb":
            # The same run when training is continued from its folder.
            options["id"] = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
            options["dir"] = str(folder)
        self.module.init(**options)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.module.log(dict(metrics), step=step)

    def close(self) -> None:
        self.module.finish()


def check_installed(targets: Sequence[LogTarget]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        ConfigError: With how to install it.
    """
    for name in targets:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"`log_to` names {name}, which is not installed. Run `pip install 'likeness[{name}]'`, or remove it "
                "from `log_to`; `log.jsonl` is always written."
            )


@contextmanager
def open_writers(settings: Any, folder: Path, *, first_step: int) -> Iterator[list[LogWriter]]:
    """The writers of a stage, closed at its end; none in processes other than the first.

    Args:
        settings: Of the stage, with `log_to`.
        folder: Of the stage.
        first_step: Steps that are done already.

    Raises:
        ConfigError: A tracker is not installed.
    """
    targets: Sequence[LogTarget] = () if distributed.rank() else settings.log_to
    check_installed(targets)
    with ExitStack() as stack:
        writers: list[LogWriter] = []
        for name in dict.fromkeys(targets):
            writer: LogWriter = (
                TensorBoardWriter(settings, folder, first_step)
                if name == "tensorboard"
                else TrackerWriter(name, settings, folder, first_step)
            )
            stack.callback(writer.close)
            writers.append(writer)
        yield writers
