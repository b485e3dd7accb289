"""The notebook: it reads what a run left, and asks its model."""

import nbclient
import nbformat
from helpers.project import ROOT


def test_the_notebook_runs_from_the_first_cell_to_the_last_in_jupyters_own_environment(longer, monkeypatch):
    for name, value in longer.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as Jupyter and Colab set it
    notebook = nbformat.read(ROOT / "notebooks/explore.ipynb", as_version=4)
    folder = longer.path / "notebooks"
    folder.mkdir(exist_ok=True)

    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()

    printed = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("longer" in output.get("text", "") for output in printed)
    assert sum("image/png" in output.get("data", {}) for output in printed) == 2
    assert not any(output.get("name") == "stderr" for output in printed)
