"""The checkpoints that are known, and their files."""

from pathlib import Path
from typing import Annotated

import typer

from .options import app, folder_to_write
from .output import said, tell, tell_table


@app.command(epilog='Example:  [bold]sdteach checkpoints[/], then [bold]sdteach generate "a red car" --model sd-turbo --steps 4 ...[/]')
def checkpoints() -> None:
    """List the checkpoints that have a name here, what each wants, and whether it is on this machine."""
    from ..loading import hub, names

    cached, known = hub.cached, names.KNOWN.items()
    tell(names.EMBEDDED, "the embedded one: no download, no GPU. Besides it, by name:\n")
    rows = ((f"[bold]{name}", f"about {what.gigabytes:g}", str(what.edge), str(what.steps), f"{what.guidance_scale:g}",
             "yes" if cached(what.hub_id) or cached(what.fallback) else "no", what.differs) for name, what in known)  # fmt: skip
    tell_table(rows, "name", "GB", "pixels", "steps", "guidance", "here", "what differs in a lesson")
    said.print()
    for name, what in known:
        tell(name, f"{what.hub_id}, else {what.fallback}; licence {what.licence}")


@app.command(
    epilog="""Examples:

[bold]sdteach prefetch sd-1.5 --to /media/stick/sd-1.5[/]   once, where there is a network

[bold]SDTEACH_MODEL=/media/stick/sd-1.5 sdteach lab[/]   then on every machine, without one; or copy the folder first

[bold]sdteach prefetch sd-turbo[/]   into the cache of this machine, where --model sd-turbo finds it"""
)
def prefetch(
    name: Annotated[str, typer.Argument(help="A name that [bold]sdteach checkpoints[/] lists, or a hub id: owner/name.")],
    to: Annotated[
        Path | None, typer.Option(parser=folder_to_write, help="A folder to copy to every machine; else the hub's cache on this one.")
    ] = None,
) -> None:
    """Fetch a checkpoint for a class, so that nobody needs the network later. Stopped, the same command goes on."""
    from ..loading import hub, names

    ids = names.hub_ids(name)
    if not ids:
        raise ValueError(f"expected one of {', '.join(names.KNOWN)} or a hub id like 'owner/name', got {name!r}")
    folder = hub.fetched(ids, to)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    tell(folder, f"{size / 1e9:.2f} GB")
    said.print(f"Now, without a network:  SDTEACH_MODEL={folder} sdteach lab", style="dim", soft_wrap=True)
