"""The lessons as assignments for nbgrader: `python assignments.py COURSE` writes COURSE/source/03_latents/03_latents.ipynb and so on.

Behind each exercise stands a locked cell worth one point, which looks at what the cell before it, the student's own, has said.
"""

import re
import sys
from pathlib import Path

import nbformat

import sdteach

POINT = {"grade": True, "solution": False, "locked": True, "points": 1, "schema_version": 3, "cell_type": "code", "task": False}
TEST = '# One point where the cell above says "Right."\nassert Out[len(In) - 2].state == "right"'

for lesson in sorted(sdteach.files.data_folder("lessons").glob("[0-9]*.ipynb")):
    notebook, cells = nbformat.read(lesson, 4), []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if exercise := re.search(r'^classroom\.check\("([\d.]+)"', cell.source, re.MULTILINE):
                name = f"exercise-{exercise[1].replace('.', '-')}"
                cells.append(nbformat.v4.new_code_cell(TEST, id=name, metadata={"nbgrader": {"grade_id": name, **POINT}}))
    notebook.cells = cells
    folder = Path(sys.argv[1], "source", lesson.stem)
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / lesson.name)
