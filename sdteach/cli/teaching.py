"""Lessons, the projector, and whether this machine will do."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import sdteach

from .options import AsJson, Model, app, folder_to_write, home_path
from .output import asides, said, say, tell, tell_table

# JupyterLab asks for news, updates and extensions on the network, in a classroom that may have none: in here they are switched off.
JUPYTER = Path(__file__).parents[1] / "classroom" / "jupyter"
SHEET = "before_and_after.ipynb"


def _serve(variables, *command, **environment):
    """Run a Jupyter program with our settings before those that the `variables` name, and end as it ends."""
    paths = {name: os.pathsep.join(filter(None, [str(JUPYTER), os.environ.get(name)])) for name in variables}
    sys.exit(subprocess.call([sys.executable, "-m", *map(str, command)], env=os.environ | paths | environment))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example:  [bold]sdteach lab[/], or [bold]sdteach lab my-lessons --no-browser --port 8899[/]",
)
def lab(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="Where your copy of the lessons is, or goes.")] = "sdteach-lessons",
) -> None:
    """Open JupyterLab on a copy of the lessons that is yours to change; what you changed stays. Other options go to JupyterLab.

    The copies show no results until you run them. Beside them lies before_and_after.ipynb, for classes (see sdteach class).
    """
    import nbformat

    from ..classroom import results

    options = context.args
    if folder.startswith("-"):  # no folder was named, the first of JupyterLab's options stands in its place
        folder, options = "sdteach-lessons", [folder, *options]
    folder = folder_to_write(folder)
    lessons = sorted(sdteach.files.data_folder("lessons").glob("*.ipynb"))
    if folder.resolve() == lessons[0].parent.resolve():
        raise ValueError(f"expected a folder of your own, got {folder}, which holds the lessons themselves; name another")
    new = [lesson for lesson in lessons if not (folder / lesson.name).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    notebooks = {lesson.name: nbformat.read(lesson, 4) for lesson in new}
    if not (folder / SHEET).exists():
        notebooks[SHEET] = results.sheet()
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        sdteach.files.write_whole(folder / name, nbformat.writes(notebook).encode())
    tell(folder, f"{len(new)} lessons copied, {len(lessons) - len(new)} kept as they were")
    _serve(["JUPYTER_CONFIG_PATH", "JUPYTER_PATH"], "jupyterlab", folder / lessons[0].name, *options)


@app.command(epilog="Example:  [bold]sdteach demo[/], or [bold]sdteach demo --model sd-1.5 --port 9000 --no-browser[/]")
def demo(
    model: Model = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page is served, on this machine only.")] = 8866,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where the page is.")] = False,
) -> None:
    """Open the projector app: type a prompt before the class, watch it become a picture, compare, save the page for the students."""
    from ..loading.names import find

    if find_spec("voila") is None:
        raise ValueError("expected voila, which serves the page, got none; pip install 'sdteach[classroom]' brings it")
    named = model or os.environ.get("SDTEACH_MODEL")
    if named:
        with asides.status("looking for the model"):
            find(named)
    page = sdteach.files.data_folder("lessons") / "demo.ipynb"
    # A token of its own each time, whatever others have set for their servers.
    _serve(["JUPYTER_PATH"], "sdteach.classroom.projector", page, f"--port={port}", *["--no-browser"] * no_browser,
           JUPYTER_TOKEN="", JUPYTER_TOKEN_FILE="", **({"SDTEACH_MODEL": named} if named else {}))  # fmt: skip


lessons = typer.Typer(no_args_is_help=True, help="The lessons as pages and handouts.")
app.add_typer(lessons, name="lessons")


@lessons.command(epilog="Example:  [bold]sdteach lessons export --to handouts[/], then print handouts/00_the_whole_trip-handout.html")
def export(
    to: Annotated[
        Path, typer.Option(parser=folder_to_write, help="The folder for the pages; what an earlier export wrote there is written anew.")
    ],
    live_page: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where the class finds the live page: the handouts show its QR code.")
    ] = None,
) -> None:
    """Make each lesson a page to read, a handout to print with room for answers, and one with the answers, all without a network."""
    with asides.status("writing the lessons"):
        from ..classroom import handouts

        *pages, index = handouts.export(to, live_page)
    tell(index, f"leads to {len(pages)} pages and handouts")


@app.command(
    "class",
    epilog="Example:  [bold]sdteach class handed-in[/], or for a spreadsheet or a script [bold]sdteach class handed-in --json[/]",
)
def count_class(
    folder: Annotated[Path, typer.Argument(parser=home_path, metavar="FOLDER", help="Where the notebooks lie that were handed in.")],
    as_json: AsJson = False,
) -> None:
    """Count what a class knew before and after each lesson, question by question, with 95 % intervals and without names.

    Reads every before_and_after.ipynb in the folder and below it, under whatever name it was handed in. Nothing in a notebook is run.
    """
    from ..classroom import results

    filled, damaged = [], 0
    for path in results.notebooks(folder):
        try:
            filled.append(results.answers(path))
        except ValueError as error:
            damaged += 1
            say(asides, ("Note: ", "bold yellow"), str(error))
    given = [answers for answers in filled if answers]
    if not given:
        raise ValueError(f"expected notebooks with answers in {folder}, got none; `sdteach lab` writes {SHEET}, which students fill")
    read = {"notebooks": len(given), "half_filled": sum(map(results.half_filled, given)), "without_answers": len(filled) - len(given),
            "unreadable": damaged}  # fmt: skip
    with asides.status("counting"):
        skills = results.counted(given)
    if as_json:
        print(json.dumps(read | {"skills": [asdict(skill) for skill in skills]}))
        return
    tell_table(((skill.number, skill.skill, *map(_counted, (skill.before, skill.after)), f"+{skill.learned} -{skill.lost}")
                for skill in skills), "", "Skill", "Right before", "Right after", "Changed")  # fmt: skip
    said.print(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in read.items()))


def _counted(measure):
    return f"{measure.value:.0%} of {measure.count} ({measure.low:.0%} to {measure.high:.0%})" if measure else ""


@app.command(
    epilog="Example:  [bold]sdteach doctor[/], or for a lab's machines [bold]sdteach doctor --json[/]; "
    "the status is 0 where all that is needed works, else 1"
)
def doctor(as_json: AsJson = False) -> None:
    """Say what works here, and what to do about what does not."""
    from ..classroom.doctor import examine

    with asides.status("looking around"), warnings.catch_warnings(action="ignore"):
        findings = list(examine())
    lacking = [finding for finding in findings if not finding.ok]
    ill = sum(finding.needed for finding in lacking)
    if as_json:
        print(json.dumps({"works": not ill, "findings": [asdict(finding) for finding in findings]}))
    else:
        tell_table((_mark(finding), Text(finding.about, "bold"), Text(finding.found)) for finding in findings)
        for finding in lacking:
            say(said, (f"{finding.about}: ", "bold red" if finding.needed else "bold yellow"), finding.remedy)
        said.print(f"{ill} to mend." if ill else "All that is needed works." if lacking else "All is well.")
    raise typer.Exit(bool(ill))


def _mark(finding):
    return "[green]ok" if finding.ok else "[bold red]!!" if finding.needed else "[yellow]--"
