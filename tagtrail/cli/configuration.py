"""`tagtrail config show`."""

from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from tagtrail.cli.common import console, output_option, print_json, resolved, setting_options
from tagtrail.config import mask_url


@click.group()
def config() -> None:
    """Show the options in force."""


@config.command()
@output_option
@setting_options()
def show(output: str, config_file: str | None, **values: Any) -> None:
    """Print every option, its value, and where the value came from."""
    found = resolved(values, config_file)
    shown = {name: _shown(name, value) for name, value in asdict(found.settings).items()}
    if output == "json":
        print_json({name: {"value": value, "from": found.origins[name]} for name, value in shown.items()})
        return
    table = Table("option", "value", "from")
    for name, value in shown.items():
        table.add_row(name, "-" if value is None else str(value), found.origins[name])
    console().print(table)


def _shown(name: str, value: Any) -> Any:
    if name == "kafka_password" and value is not None:
        return "***"
    return mask_url(value) if name == "database" and value is not None else value
