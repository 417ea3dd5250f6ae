"""The wheel: it holds the migrations and the workflows, and the command that it installs works anywhere."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel in it, and with this environment's other packages."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    programs = folder / "bin"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
        timeout=SECONDS,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    # After the wheel's own folder, so that its Circuit counts and not one that is installed here.
    (packages / "dependencies.pth").write_text("\n".join([*site.getsitepackages(), ""]))
    return programs


def circuit(programs: Path, cwd: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CIRCUIT_", "PYTHON"))}
    return subprocess.run(
        [str(programs / "circuit"), *arguments],
        cwd=cwd,
        env={**environment, "CIRCUIT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_wheel_holds_what_it_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith("circuit_engine-")
    for name in ("migrations/env.py", "workflows/hello.yaml", "workflows/document_review.yaml", "py.typed"):
        assert f"circuit/{name}" in names, name
    for file in (ROOT / "migrations" / "versions").glob("*.py"):
        assert f"circuit/migrations/versions/{file.name}" in names
    for file in (ROOT / "circuit" / "api" / "explorer" / "assets").iterdir():
        assert f"circuit/api/explorer/assets/{file.name}" in names
    for file in (ROOT / "workflows" / "documents").iterdir():
        assert f"circuit/workflows/documents/{file.name}" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_what_the_wheel_installs_works_from_another_directory(installed: Path, tmp_path: Path, home: Path) -> None:
    where = subprocess.run(
        [str(installed / "python"), "-c", "import circuit; print(circuit.__file__)"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(where).is_relative_to(installed.parent), "another Circuit hides the installed one"
    workflow = Path(where).parent / "workflows" / "hello.yaml"

    status = circuit(installed, tmp_path, "db", "status", "--json", home=home)
    assert status.returncode == 1
    assert orjson.loads(status.stdout)["state"] == "empty"
    run = circuit(installed, tmp_path, "run", str(workflow), "--json", home=home)
    assert run.returncode == 0, run.stderr
    case = orjson.loads(run.stdout)
    assert (case["status"], case["marking"]) == ("completed", {"said": 1})
    status = circuit(installed, tmp_path, "db", "status", home=home)
    assert status.returncode == 0
    assert "up to date" in status.stdout
    missing = circuit(installed, tmp_path, "run", "hello.yaml", home=home)
    assert missing.returncode == 2
    assert str(workflow) in missing.stderr


def test_the_demo_runs_what_ships() -> None:
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    ).stdout
    named = re.findall(r"workflows/\S+", plan)
    assert len(named) == 2, plan
    assert all((ROOT / name).is_file() for name in named), named
