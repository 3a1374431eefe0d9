"""The checkpoints that are known, and their files."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from .options import app
from .output import check_writable, notes, said


@app.command(epilog='Example:  [bold]sdteach checkpoints[/], then [bold]sdteach generate "a red car" --model sd-turbo --steps 4 ...[/]')
def checkpoints() -> None:
    """List the checkpoints that have a name here, what each wants, and whether it is on this machine."""
    from ..loading.hub import cached
    from ..loading.names import EMBEDDED, KNOWN

    said.print(Text.assemble((EMBEDDED, "bold"), "  the embedded one: no download, no GPU. Besides it, by name:\n"))
    table = Table("name", "GB", "pixels", "steps", "guidance", "here", "what differs in a lesson", box=None, padding=(0, 1, 0, 0))
    for name, one in KNOWN.items():
        here = next((hub_id for hub_id in (one.hub_id, one.fallback) if cached(hub_id)), None)
        table.add_row(Text(name, "bold"), f"about {one.gigabytes:g}", str(one.edge), str(one.steps), f"{one.guidance_scale:g}",
                      "yes" if here else "no", one.differs)  # fmt: skip
    said.print(table)
    said.print()
    for name, one in KNOWN.items():
        said.print(Text.assemble((name, "bold"), f"  {one.hub_id}, else {one.fallback}; licence {one.licence}"), soft_wrap=True)


@app.command(
    epilog="""Examples:

[bold]sdteach prefetch sd-1.5 --to /media/stick/sd-1.5[/]   once, where there is a network

[bold]SDTEACH_MODEL=/media/stick/sd-1.5 sdteach lab[/]   then on every machine, without one; or copy the folder first

[bold]sdteach prefetch sd-turbo[/]   into the cache of this machine, where --model sd-turbo finds it"""
)
def prefetch(
    name: Annotated[str, typer.Argument(help="A name that [bold]sdteach checkpoints[/] lists, or a hub id: owner/name.")],
    to: Annotated[Path | None, typer.Option(help="A folder to copy to every machine; else the hub's cache on this one.")] = None,
) -> None:
    """Fetch a checkpoint for a class, so that nobody needs the network later. Stopped, the same command goes on."""
    from ..loading.hub import fetch_to, fetched
    from ..loading.names import KNOWN, hub_ids

    ids = hub_ids(name)
    if not ids:
        raise ValueError(f"expected one of {', '.join(KNOWN)} or a hub id like 'owner/name', got {name!r}")
    if to:
        check_writable(to / "model_index.json")
    with notes():
        folder = fetch_to(ids, to) if to else fetched(ids)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    said.print(Text.assemble((str(folder), "bold"), f"  {size / 1e9:.2f} GB"), soft_wrap=True)
    said.print(f"Now, without a network:  SDTEACH_MODEL={folder} sdteach lab", style="dim", soft_wrap=True)
