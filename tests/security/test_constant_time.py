"""What strangers send is compared with secrets in constant time only, in all that a listener runs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.vendors import vendor_names

ROOT = Path(__file__).parents[2]
# Words of names whose values only those may know who were told.
SECRET = (
    "secret",
    "token",
    "signature",
    "password",
    "credential",
    "hmac",
    "digest",
    "api_key",
    "signing_key",
)
# Named so, and no secret: what a header or a setting is called, or where it is.
NO_SECRET = ("header", "names", "name", "file", "path", "position", "headers")
# What is looked through after its sender proved to know the secret: a dead letter's headers, so that none of
# them holds it.
VERIFIED = {"ingest/dead_letter.py": ["secret in value"]}


def _listening() -> list[Path]:
    """Return every module of ours in a process with a listener."""
    vendors = ", ".join(f"ingest.vendors.{name}" for name in vendor_names())
    ours = (
        "[module.__file__ for name, module in sys.modules.items() "
        "if name.split('.')[0] in ('ingest', 'receivers')]"
    )
    program = (
        "import json, sys, receivers.server, receivers.app, "
        f"ingest.admin, {vendors}; print(json.dumps({ours}))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(file) for file in json.loads(completed.stdout)]


def _compared_secrets(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        sides = _compared(node)
        if any(map(_is_secret, sides)) and not any(map(_is_known, sides)):
            yield f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}"


def _compared(node: ast.AST) -> list[ast.expr]:
    """Return what is compared with what, by an operator or by a method of texts."""
    if isinstance(node, ast.Compare) and any(
        isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops
    ):
        return [node.left, *node.comparators]
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"startswith", "endswith", "index", "find"}
    ):
        return [node.func.value, *node.args]
    return []


def _is_secret(side: ast.expr) -> bool:
    """Return whether an expression is a secret by its name, or the name of what makes it."""
    return any(_sounds_secret(name) for part in ast.walk(side) for name in [_name(part)] if name)


def _name(part: ast.AST) -> str:
    return part.id if isinstance(part, ast.Name) else part.attr if isinstance(part, ast.Attribute) else ""


def _sounds_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET) and not name.lower().endswith(NO_SECRET)


def _is_known(side: ast.expr) -> bool:
    """Return whether an expression is a constant of ours, or a length."""
    counted = isinstance(side, ast.Call) and isinstance(side.func, ast.Name) and side.func.id == "len"
    return isinstance(side, ast.Constant) or counted


def test_nothing_that_listens_compares_a_secret_but_in_constant_time() -> None:
    files = _listening()
    assert {"admin.py", "signing.py", "webhook.py", "sources.py"} <= {file.name for file in files}
    assert {file.parent.name for file in files} >= set(vendor_names())
    result = {
        str(file.relative_to(ROOT)): wrong
        for file in files
        if (wrong := list(_compared_secrets(file.read_text())))
    }
    assert {file: [line.partition(": ")[2] for line in wrong] for file, wrong in result.items()} == VERIFIED


def _called_in(file: Path, function: str) -> set[str]:
    """Return the names of all that a function calls."""
    (result,) = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    return {_name(node.func) for node in ast.walk(result) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("vendor", vendor_names())
def test_every_vendor_is_believed_by_a_comparison_in_constant_time(vendor: str) -> None:
    assert "which_matches" in _called_in(ROOT / "ingest" / "vendors" / vendor / "__init__.py", "authenticate")
    assert "compare_digest" in _called_in(ROOT / "ingest" / "signing.py", "which_matches")


def test_an_admin_token_is_believed_by_a_comparison_in_constant_time() -> None:
    assert "compare_digest" in _called_in(ROOT / "ingest" / "admin.py", "build_admin")


@pytest.mark.parametrize(
    "careless",
    ["given == secret", "self.account.token != given", "given in account.live_secrets()",
    "if signature == expected: pass",
    "header.startswith(password)",
     "password.find(given)", "(user, password) == given", "hmac_sha256_hex(key, body) == given",
     "secret.get_secret_value() == given",
     "not given == api_key"],
)  # fmt: skip
def test_a_careless_comparison_would_be_found(careless: str) -> None:
    assert list(_compared_secrets(careless))


@pytest.mark.parametrize(
    "careful",
    [
        "hmac.compare_digest(secret, given)",
        "secret is None",
        "name == 'secret'",
        "len(signatures) == 1",
        "secret_header == name",
        "a == b",
    ],
)
def test_a_careful_one_is_not(careful: str) -> None:
    assert list(_compared_secrets(careful)) == []
