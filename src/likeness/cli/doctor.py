"""`likeness doctor`: report what this machine can run and which weights are installed."""

from typing import TYPE_CHECKING, Any

import typer

from likeness.cli.console.options import Json, MemoryGb
from likeness.cli.console.terminal import escape_control_characters, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    gpu_memory_gb: MemoryGb = None,
    as_json: Json = False,
) -> None:
    """Report what this machine can run and which weights are installed."""
    from likeness.cli.console.progress import spinner

    with spinner("Examining the machine", is_quiet=as_json):
        from likeness.app.doctor import collect_environment

        environment_report = collect_environment(gpu_memory_gb)
    if as_json:
        print_json(environment_report)
        return
    _print(environment_report)


def _print(environment_report: dict[str, Any]) -> None:
    from rich.console import Console

    machine = environment_report["machine"]
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / 1e9:.0f} GB)" for gpu in machine["gpus"])
    environment = {
        "system": machine["platform"],
        "python": machine["python"],
        "cores": f"{machine['num_usable_cores']} of {machine['num_cores']}",
        "memory": f"{machine['memory_bytes'] / 1e9:.0f} GB",
        "gpu": gpus or "none (tiny runs without)",
    }
    packages = {name: value or "missing" for name, value in environment_report["versions"].items()}
    console = Console()
    console.print(_table("Machine", ("", ""), list((environment | packages).items())))
    weights = [
        (row["name"], row["preset"], row["state"], f"{row['size_bytes'] / 1e6:.1f} MB", row["licence"])
        for row in environment_report["weights"]
    ]
    console.print(_table("Weights", ("name", "preset", "state", "size", "licence"), weights))
    for row in environment_report["weights"]:
        if row["problem"]:
            console.print(escape_control_characters(row["problem"]), style="red", markup=False)
    runs = [
        (row["preset"], row["backbone"], row["method"], "yes" if row["can_run"] else "no", row["reason"])
        for row in environment_report["runs"]
    ]
    console.print(_table("What can run", ("preset", "backbone", "method", "runs", "why"), runs))
    _print_plans(console, environment_report)


def _print_plans(console: "Console", environment_report: dict[str, Any]) -> None:
    gpu = (
        f"a GPU with {environment_report['card_gb']:.0f} GB"
        if environment_report["card_gb"]
        else "no GPU here; see --memory-gb"
    )
    rows = [
        (
            row["preset"],
            row["plan"],
            *(f"{row[key]:.1f}" for key in ("text_gb", "denoise_gb", "decode_gb", "card_gb", "host_gb")),
            "<- taken" if row["is_chosen"] else "",
            row["sentence"],
        )
        for row in environment_report["plans"]
    ]
    columns = ("preset", "plan", "text", "denoise", "decode", "GPU", "host", "", "what it does")
    console.print(_table(f"Memory plans, predicted GB ({gpu})", columns, rows))


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.show_header = any(columns)
    for column in columns:
        table.add_column(column)
    for row in rows:
        # Strings are markup to rich.
        table.add_row(*(Text(escape_control_characters(cell, lines=False)) for cell in row))
    return table
