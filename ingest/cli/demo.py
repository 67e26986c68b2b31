"""`demo`."""

import typer


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    app.command()(demo)


def demo() -> None:
    """Later."""
