"""Records in, matplotlib figures out. Nothing here computes, shows or saves; `get_label()` of a figure is its alt text."""

from .channels import latent_channels, latent_colours, latent_distribution, reconstruction
from .chips import token_chips
from .curves import curves, intervals, learning, point_clouds, schedule_curves
from .diagrams import pipeline_map, unet_map
from .film import contact_sheet, filmstrip, noised, run_step
from .grids import picture_grid
from .overlays import boxes, heat_maps, heated, layer_names, regions
from .planes import guidance_arrows, prompt_map
from .tables import Task, feature_matrix, heat_table, task_table

__all__ = [
    "Task", "boxes", "contact_sheet", "curves", "feature_matrix", "filmstrip", "guidance_arrows", "heat_maps", "heat_table", "heated",
    "intervals", "latent_channels", "latent_colours", "latent_distribution", "layer_names", "learning", "noised",
    "picture_grid", "pipeline_map", "point_clouds", "prompt_map", "reconstruction", "regions", "run_step", "schedule_curves",
    "task_table", "token_chips", "unet_map",
]  # fmt: skip
