"""Trains a checkpoint of toy size into the folder that is named; alone, or its share under `accelerate launch`."""

import sys
from dataclasses import replace
from pathlib import Path

from transformers import CLIPTokenizer

from sdteach.files import data_folder
from sdteach.loading.names import EMBEDDED
from sdteach.picturebook.training import PRESETS, Watch, train
from sdteach.picturebook.training.recipe import Phase

PHASE = Phase(steps=6, batch=8, learning_rate=3e-4, ema_decay=0.8, warmup=2)
PHASES = [name for name, value in vars(PRESETS["cpu"]).items() if isinstance(value, Phase)]
USUAL_PHASES = [name for name in PHASES if name != "judge"]
RECIPE = replace(PRESETS["cpu"].shortened(0.0), vae_channels=(16,) * 4, unet_channels=(32,) * 3, **dict.fromkeys(PHASES, PHASE))

if __name__ == "__main__":
    tokenizer = CLIPTokenizer.from_pretrained(data_folder("assets") / EMBEDDED / "tokenizer")
    watch = Watch(samples=lambda file, pictures, captions: print("painted", file.name), log_every=2, save_every=0.0, captions=1)
    train(Path(sys.argv[1]), tokenizer, RECIPE, watch=watch)
