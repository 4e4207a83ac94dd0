"""The lists of required packages, and `make setup`."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import programs

ROOT = Path(__file__).parent.parent
LISTS = ("requirements.txt", "requirements-extras.txt", "requirements-dev.txt")
IMPORTED_AS = {
    "Cython": "cython",
    "PIL": "pillow",
    "espeakng_loader": "espeakng-loader",
    "fastapi": "gradio",
    "gradio_client": "gradio",
    "pydantic": "gradio",
    "starlette": "gradio",
    "triton": "torch",
    "packaging": "pytest",
    "IPython": "ipykernel",
    "piper": "piper-tts",
}
HADOLINT = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
NOT_REQUIRED = {"core", "google", "transformers"}  # compiled here; only on Colab; only to write golden files


def lines(name: str) -> list[str]:
    """Return the requirements of a file, without comments and references to other files."""
    found = (line.split("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    return [line for line in found if line and not line.startswith("-r")]


def required() -> dict[str, Requirement]:
    """Return the requirements of all files by name."""
    requirements = [Requirement(line) for name in LISTS for line in lines(name)]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pinned() -> dict[str, str]:
    """Return the versions of requirements.lock by name."""
    pins: dict[str, str] = {}
    for line in lines("requirements.lock"):
        name, version = line.split("==")
        assert name == canonicalize_name(name) and name not in pins
        pins[name] = version
    return pins


def test_every_required_package_is_pinned_within_its_bounds():
    pins = pinned()
    assert list(pins) == sorted(pins)
    assert not [name for name in pins if name.startswith("nvidia")]
    for name, requirement in required().items():
        assert requirement.specifier.contains(pins[name]), requirement


def test_every_pin_has_hashes():
    """`make hashes` writes the file. It also has packages of other systems, and those that the pins require there."""
    text = "\n".join(lines("requirements-hashes.txt")).replace("\\\n", " ")
    entries = re.findall(r"^(\S+)==(\S+)(?: ;[^\n]*?)?((?: +--hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE)
    assert len(entries) == len(text.splitlines())
    versions = {(name, version) for name, version, _ in entries}
    assert not set(pinned().items()) - versions, "run make hashes"
    others = {name for name, _ in versions} - set(pinned())
    assert not {(name, version) for name, version in versions if name not in others} - set(pinned().items())


def imports(path: Path) -> set[str]:
    """Return the top-level modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def test_every_imported_package_is_required():
    files = [path for folder in (".", "*") for path in ROOT.glob(f"{folder}/*.py") if path.parent.name != ".venv"]
    own = {path.stem for path in files} | {path.parent.name for path in files}
    foreign = set().union(*map(imports, files)) - own - set(sys.stdlib_module_names)
    assert foreign >= {"torch", "numpy", "onnxruntime"}
    missing = {name for name in foreign if canonicalize_name(IMPORTED_AS.get(name, name)) not in required()}
    assert missing <= NOT_REQUIRED


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("exit 127", "does not run"),
        ('case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac', "is Python 3.9.2"),
        ('case "$*" in *ensurepip*) exit 1;; esac', "apt install python3-venv"),
    ],
    ids=["no Python", "old Python", "no venv"],
)
def test_setup_reports_missing_requirements_in_one_line(tmp_path, python, message):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{python}\n", "utf-8")
    program.chmod(0o755)
    command = ["make", "setup", f"PYTHON={program}", f"VENV={tmp_path / 'venv'}"]
    variables = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # `make test` sets some
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    output = (done.stdout + done.stderr).splitlines()
    assert done.returncode and message in output[0] and output[1].startswith("make: ***") and len(output) == 2
    assert not (tmp_path / "venv").exists()


def test_the_installed_package_has_every_folder_and_every_program():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    listed = set(project["tool"]["setuptools"]["packages"])
    assert listed == {"vits2", *(f"vits2.{name}" for name in folders)}
    for entry in project["project"]["scripts"].values():
        assert callable(getattr(programs, entry.partition(":")[2]))
    for pattern in project["tool"]["setuptools"]["package-data"]["vits2"]:
        assert list(ROOT.glob(pattern)) or pattern.startswith("pretrained/"), pattern


@pytest.mark.parametrize(
    ("command", "options", "code", "expected"),
    [
        ("vits2-speak", ["--help"], 0, '  vits2-speak -m NAME -t "Hello." -o hello.wav'),
        ("vits2-speak", ["-t", "Hello.", "-m", "nothing"], 2, "vits2-speak: there is no checkpoint or run nothing"),
        ("vits2-speak", ["-t", "Hello.", "--sed", "1"], 2, "vits2-speak: unknown option --sed; did you mean --seed?"),
        ("vits2-train", ["-c", "nothing.json", "-m", "my"], 2, "vits2-train: cannot read the config file nothing.json"),
    ],
)
def test_an_installed_program_has_its_own_name_and_hides_its_modules(tmp_path, command, options, code, expected):
    """The package is a link here, and the working directory is not a clone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vits2").symlink_to(ROOT)
    script = f"""if True:
    import sys
    from vits2 import programs
    assert "utils" not in sys.modules
    sys.argv = ["/usr/bin/{command}", *{options}]
    programs.{command.partition("-")[2]}()"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == code and any(line.startswith(expected) for line in output.splitlines()), output
    assert ".py" not in output.partition("Examples:")[2]


@pytest.mark.skipif(not HADOLINT, reason="hadolint is missing: pip install -r requirements-dev.txt")
def test_dockerfile_has_no_findings():
    done = subprocess.run([HADOLINT, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout
