"""Progress bars on the error stream; the output stream carries results only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(
    label: str, *, done_label: str = "Decoding and measuring", is_quiet: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Show one bar; yields a function of steps done and all steps. `done_label` is the label after the last step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=is_quiet) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            description = label if done < total else done_label
            bar.update(task, completed=done, total=total, description=description)

        yield report


@contextmanager
def spinner(label: str, *, is_quiet: bool = False) -> Iterator[None]:
    """Show a spinner for work of unknown length."""
    from rich.console import Console

    console = Console(stderr=True, quiet=is_quiet)
    with console.status(label):
        yield


@contextmanager
def phases(*, is_quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar with the time left for each part of a task; yields a function of its label, steps done and all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=is_quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield report
