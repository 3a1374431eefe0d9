"""Run lessons and keep what they show: `python tests/lessons/run.py lessons/00_the_whole_trip.ipynb` executes in place."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SHOWN = ("text/html", "image/png", "text/plain")


def run(path, **environment):
    """The notebook at `path`, executed from the top in a fresh kernel and an empty folder, every network refused but loopback."""
    notebook = nbformat.read(path, 4)
    paths = [str(ROOT), str(ROOT / "tests" / "offline")]
    kept = {name: value for name, value in os.environ.items() if name not in {"SDTEACH_MODEL", "SDTEACH_THEME", "PYTHONPATH"}}
    with tempfile.TemporaryDirectory() as folder:
        here = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", coalesce_streams=True, resources=here)
        client.execute(env=kept | {"PYTHONPATH": os.pathsep.join(paths)} | environment)
        left = [path.name for path in Path(folder).iterdir()]
    if left:
        raise RuntimeError(f"{path} wrote {left}")
    return notebook


def tidy(notebook):
    """Without progress bars, live widgets and times: what is left is for those who only read, and the same in every run."""
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = number + 1
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            if "data" in output:
                output["data"] = {kind: data for kind, data in output["data"].items() if kind in SHOWN}
                if "text/html" in output["data"]:
                    output["data"].pop("image/png", None)
            if "execution_count" in output:
                output["execution_count"] = number + 1
        cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"}}  # fmt: skip
    return notebook


def _is_bar(output):
    """A progress bar, which has nothing left to say, or a warning of where it cannot be drawn."""
    if output.output_type == "stream":
        return output.name == "stderr" and ("%|" in output.text or "it/s" in output.text)
    plain = "".join(output.get("data", {}).get("text/plain", ""))
    return set(output.get("data", {})) == {"text/plain"} and ("%|" in plain or "0step [" in plain)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name)
        executed = tidy(run(name))
        nbformat.write(executed, name)
