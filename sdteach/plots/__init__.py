"""Records in, matplotlib figures out. Nothing here computes, shows or saves; `get_label()` of a figure is its alt text."""

from .attention import heat_maps, heated, layer_names
from .curves import curves, intervals, learning, loss_curve, point_clouds, schedule_curves
from .map import pipeline_map
from .pictures import latent_channels, latent_colours, latent_distribution, picture_grid, reconstruction
from .run import contact_sheet, filmstrip, noised, run_step
from .tasks import Task, boxes, regions, task_table
from .text import feature_matrix, heat_table, prompt_map
from .tokens import token_chips
from .unet import guidance_arrows, unet_map

__all__ = [
    "Task", "boxes", "contact_sheet", "curves", "feature_matrix", "filmstrip", "guidance_arrows", "heat_maps", "heat_table", "heated",
    "intervals", "latent_channels", "latent_colours", "latent_distribution", "layer_names", "learning", "loss_curve", "noised",
    "picture_grid", "pipeline_map", "point_clouds", "prompt_map", "reconstruction", "regions", "run_step", "schedule_curves",
    "task_table", "token_chips", "unet_map",
]  # fmt: skip
