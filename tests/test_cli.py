"""Cells that end in one line."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

import cells


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # not the user's settings and history
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_what_a_user_can_mend_stops_with_its_message():
    for error in (ValueError("data.hop_length is 3"), OSError("no such disk")):
        with pytest.raises(cells.Stopped, match=str(error)) as stopped, cells.errors_in_one_line():
            raise error
        assert stopped.value._render_traceback_() == [f"Stopped: {error}"]
    with pytest.raises(KeyError), cells.errors_in_one_line():
        raise KeyError("a mistake of ours keeps its traceback")


def test_a_program_that_failed_stops_the_cell(shell):
    shell.run_cell("!exit 0")
    cells.stop_if_failed()
    shell.run_cell("!exit 3")
    with pytest.raises(cells.Stopped, match="exit status 3"):
        cells.stop_if_failed()


def test_the_notebook_shows_the_message_alone(shell, capsys):
    result = shell.run_cell("import cells\nraise cells.Stopped('there is no my.zip')")
    assert isinstance(result.error_in_exec, cells.Stopped)
    assert capsys.readouterr().out.strip() == "Stopped: there is no my.zip"
