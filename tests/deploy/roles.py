"""The roles that are deployed, and the settings that a process of one would have."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.processes import PythonProcess

SECTIONS = {"receive": "receiver", "consume": "consumer", "reconcile": "reconcile"}
"""The section of the settings of each command."""


def settings_with(environ: Mapping[str, str]) -> Any:
    """Return the settings that a process with these variables would have, as JSON has them."""
    code = "from ingest.settings.sources import load_settings; print(load_settings().model_dump_json())"
    with PythonProcess(code, **environ) as process:
        return json.loads(process.finish())
