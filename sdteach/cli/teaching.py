"""Lessons, the projector, and whether this machine will do."""

import json
import os
import shutil
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

from .options import AsJson, Model, app, folder_to_write
from .output import asides, said, tell, tell_table

# JupyterLab asks for news, updates and extensions on the network, in a classroom that may have none: in here they are switched off.
JUPYTER = Path(__file__).parents[1] / "classroom" / "jupyter"


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
    """Open JupyterLab on a copy of the lessons that is yours to change; what you changed stays. Other options go to JupyterLab."""
    options = context.args
    if folder.startswith("-"):  # no folder was named, the first of JupyterLab's options stands in its place
        folder, options = "sdteach-lessons", [folder, *options]
    folder = folder_to_write(folder)
    lessons = sorted(sdteach.files.data_folder("lessons").glob("*.ipynb"))
    if folder.resolve() == lessons[0].parent.resolve():
        raise ValueError(f"expected a folder of your own, got {folder}, which holds the lessons themselves; name another")
    new = [lesson for lesson in lessons if not (folder / lesson.name).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for lesson in new:
        shutil.copyfile(lesson, folder / lesson.name)
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
) -> None:
    """Make each lesson a page to read, a handout to print with room for answers, and one with the answers, all without a network."""
    with asides.status("writing the lessons"):
        from ..classroom import handouts

        *pages, index = handouts.export(to)
    tell(index, f"leads to {len(pages)} pages and handouts")


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
            about = (f"{finding.about}: ", "bold red" if finding.needed else "bold yellow")
            said.print(Text.assemble(about, finding.remedy), soft_wrap=True)
        said.print(f"{ill} to mend." if ill else "All that is needed works." if lacking else "All is well.")
    raise typer.Exit(bool(ill))


def _mark(finding):
    return "[green]ok" if finding.ok else "[bold red]!!" if finding.needed else "[yellow]--"
