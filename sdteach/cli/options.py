"""What the commands ask, and where they meet."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

# What several commands ask alike.
Model = Annotated[
    str | None,
    typer.Option(
        help="A folder, a .safetensors file, a name that `sdteach checkpoints` lists, a hub id; else $SDTEACH_MODEL, else embedded."
    ),
]
Steps = Annotated[int, typer.Option(help="Steps of the sampler.")]
Seed = Annotated[int, typer.Option(help="The seed of the noise.")]
Scale = Annotated[
    float | None, typer.Option(help="How far to push towards the prompt; 1 is off. By default the checkpoint's own usual scale.")
]
Negative = Annotated[str, typer.Option(help="What to push away from.")]
Edge = Annotated[int | None, typer.Option(help="In pixels, a multiple of 8.")]
Scheduler = Annotated[str | None, typer.Option(help="A diffusers class, such as EulerDiscreteScheduler.")]
Strength = Annotated[float | None, typer.Option(help="How far to leave the picture, 0 to 1; the share of the steps that is made.")]
Offload = Annotated[bool, typer.Option("--offload", help="Keep the weights in the CPU's memory: slow, but large checkpoints run.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")]
