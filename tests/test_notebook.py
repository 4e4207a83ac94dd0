"""The notebook runs from top to bottom with tiny voices, and is stored without outputs."""

import json
from pathlib import Path

import pytest
import tiny_voices

NOTEBOOK = Path(__file__).resolve().parents[1] / "inference.ipynb"


def test_no_outputs_are_stored():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


def test_every_cell_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is an extra: pip install -r requirements-extras.txt")
    pytest.importorskip("ipykernel", reason="ipykernel is an extra: pip install -r requirements-extras.txt")
    import nbformat

    tiny_voices.save(tmp_path / "single", tiny_voices.settings(), with_config=False)
    many = tiny_voices.settings(speakers={"anna": 0, "bo": 1, "carla": 2}, use_sdp=True)
    tiny_voices.save(tmp_path / "many", many, with_config=False)
    monkeypatch.setenv("VITS_SINGLE", str(tmp_path / "single"))
    monkeypatch.setenv("VITS_MANY", str(tmp_path / "many"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sounds = [out for cell in code for out in cell.outputs if "text/html" in out.get("data", {})]
    assert len(sounds) == 9
    assert (tmp_path / "speech.png").exists()
