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
from rich.table import Table
from rich.text import Text

from .options import Model, app
from .output import asides, check_writable, notes, said

# JupyterLab asks for news, updates and extensions on the network, in a classroom that may have none: in here they are switched off.
JUPYTER = Path(__file__).parents[1] / "classroom" / "jupyter"


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example:  [bold]sdteach lab[/], or [bold]sdteach lab my-lessons --no-browser --port 8899[/]",
)
def lab(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where your copy of the lessons is, or goes.")] = Path("sdteach-lessons"),
) -> None:
    """Open JupyterLab on a copy of the lessons that is yours to change; what you changed stays. Other options go to JupyterLab."""
    from ..files import data_folder

    options = context.args
    if str(folder).startswith("-"):  # no folder was named, the first of JupyterLab's options stands in its place
        folder, options = Path("sdteach-lessons"), [str(folder), *options]
    lessons = sorted(data_folder("lessons").glob("*.ipynb"))
    if folder.resolve() == lessons[0].parent.resolve():
        raise ValueError(f"expected a folder of your own, got {folder}, which holds the lessons themselves; name another")
    check_writable(folder / lessons[0].name)
    new = [lesson for lesson in lessons if not (folder / lesson.name).exists()]
    for lesson in new:
        shutil.copyfile(lesson, folder / lesson.name)
    said.print(Text.assemble((str(folder), "bold"), f"  {len(new)} lessons copied, {len(lessons) - len(new)} kept as they were"))
    settings = os.pathsep.join(filter(None, [str(JUPYTER), os.environ.get("JUPYTER_CONFIG_PATH")]))
    command = [sys.executable, "-m", "jupyterlab", str(folder / lessons[0].name), *options]
    sys.exit(subprocess.call(command, env=os.environ | {"JUPYTER_CONFIG_PATH": settings}))


@app.command(epilog="Example:  [bold]sdteach demo[/], or [bold]sdteach demo --model sd-1.5 --port 9000 --no-browser[/]")
def demo(
    model: Model = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page is served, on this machine only.")] = 8866,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where the page is.")] = False,
) -> None:
    """Open the projector app: type a prompt before the class, watch it become a picture, compare, save the page for the students."""
    from ..checkpoints import find
    from ..files import data_folder

    if find_spec("voila") is None:
        raise ValueError("expected voila, which serves the page, got none; pip install 'sdteach[classroom]' brings it")
    named = model or os.environ.get("SDTEACH_MODEL")
    if named:
        with notes(), asides.status("looking for the model"):
            find(named)
    paths = os.pathsep.join(filter(None, [str(JUPYTER), os.environ.get("JUPYTER_PATH")]))
    command = [sys.executable, "-m", "voila", str(data_folder("lessons") / "demo.ipynb"), "--template=demo", f"--port={port}",
               # Of JupyterLab's extensions only the widgets': voila's own JupyterLab is older than what others are built for.
               "--VoilaConfiguration.extension_allowlist=@jupyter-widgets/jupyterlab-manager",
               "--VoilaConfiguration.extension_allowlist=@voila-dashboards/widgets-manager8",
               # One model in memory: a page that is left ends its kernel. Voila asks for a cookie then that it has not set; that no other
               # site may ask is seen to without it. A page that is gone without a word has its kernel culled.
               "--Voila.tornado_settings={'disable_check_xsrf': True}",
               "--MappingKernelManager.cull_interval=30", "--MappingKernelManager.cull_idle_timeout=60"]  # fmt: skip
    given = {"JUPYTER_PATH": paths} | ({"SDTEACH_MODEL": named} if named else {})
    sys.exit(subprocess.call(command + ["--no-browser"] * no_browser, env=os.environ | given))


lessons = typer.Typer(no_args_is_help=True, help="The lessons as pages and handouts.")
app.add_typer(lessons, name="lessons")


@lessons.command(epilog="Example:  [bold]sdteach lessons export --to handouts[/], then print handouts/00_the_whole_trip-handout.html")
def export(to: Annotated[Path, typer.Option(help="The folder for the pages; what an earlier export wrote there is written anew.")]) -> None:
    """Make each lesson a page to read, a handout to print with room for answers, and one with the answers, all without a network."""
    check_writable(to / "index.html")
    from ..classroom.handouts import export as run

    with asides.status("writing the lessons"):
        pages = [*run(to)]
    said.print(Text.assemble((str(pages[-1]), "bold"), f"  leads to {len(pages) - 1} pages and handouts"), soft_wrap=True)


@app.command(
    epilog="Example:  [bold]sdteach doctor[/], or for a lab's machines [bold]sdteach doctor --json[/]; "
    "the status is 0 where all that is needed works, else 1"
)
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False) -> None:
    """Say what works here, and what to do about what does not."""
    from ..classroom.doctor import examine

    with asides.status("looking around"), warnings.catch_warnings(action="ignore"):
        findings = list(examine())
    lacking = [finding for finding in findings if not finding.ok]
    ill = [finding for finding in lacking if finding.needed]
    if as_json:
        print(json.dumps({"works": not ill, "findings": [asdict(finding) for finding in findings]}))
        sys.exit(1 if ill else 0)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for finding in findings:
        mark = Text("ok", "green") if finding.ok else Text("!!", "bold red") if finding.needed else Text("--", "yellow")
        table.add_row(mark, Text(finding.about, "bold"), Text(finding.found))
    said.print(table)
    for finding in lacking:
        said.print(Text.assemble((f"{finding.about}: ", "bold red" if finding.needed else "bold yellow"), finding.remedy), soft_wrap=True)
    said.print(("All that is needed works." if lacking else "All is well.") if not ill else f"{len(ill)} to mend.")
    sys.exit(1 if ill else 0)
