"""Folders of which one file is changed, cut or gone: each is loaded and paints, or is refused in a sentence, whatever the libraries said.

$SDTEACH_FUZZ is the number of cases, 60 unless it says otherwise; 1,000 take about four minutes of a core.
"""

import json
import os
import random
import shutil

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)  # fmt: skip

import sdteach

from conftest import SCHEDULE, _unet, _vae

CASES = int(os.environ.get("SDTEACH_FUZZ", "60"))
NUMBERS = [0, 1, -1, 3, 0.5, 1e9, 10**5, 10**6, -(2**40), 10**400, 1e308, float("nan"), float("inf"), True, False, None]
VALUES = [*NUMBERS, "", "x", [], [0], [-1], [4, 8], [[]], {}, {"a": 1}, "9" * 400, ["x"] * 3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of every part that a folder may hold, each as small as it can be; its tokenizer knows single bytes."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(3)
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    size = len(vocabulary)
    special = dict(vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1)
    small = dict(intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    unet = _unet(block_out_channels=(8, 16), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                 up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2)  # fmt: skip
    StableDiffusionPipeline(
        _vae(), CLIPTextModel(CLIPTextConfig(hidden_size=24, **special, **small)), CLIPTokenizer(vocabulary, [], model_max_length=77), unet,
        PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1), None,
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=16, image_size=32, patch_size=16, projection_dim=12, **small)),
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    save_file({"weight": torch.randn(12, 24)}, folder / "text_projection.safetensors")
    (folder / "vocabulary.txt").write_text("a red car")
    (folder / "sdteach.json").write_text('{"guidance_scale": 2.5}')
    return folder


def changed(rng, tree):
    """One place somewhere in `tree` becomes something else, or goes."""
    key = rng.choice([*tree] if isinstance(tree, dict) else range(len(tree)))
    if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.7:
        changed(rng, tree[key])
    elif rng.random() < 0.1:
        del tree[key]
    else:
        tree[key] = rng.choice(VALUES)


def damaged(rng, file):
    data = bytearray(file.read_bytes())
    file.unlink()
    if file.suffix == ".json" and rng.random() < 0.9:
        tree = json.loads(data)
        changed(rng, tree)
        file.write_text(json.dumps(tree))
    elif rng.random() < 0.8:
        data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        file.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_folder_paints_or_is_refused_in_a_sentence(whole, tmp_path):
    loaded = 0
    for seed in range(CASES):
        rng, folder = random.Random(seed), tmp_path / str(seed)
        shutil.copytree(whole, folder, copy_function=os.link)
        file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and (path.suffix == ".json" or rng.random() < 0.3)))
        damaged(rng, file)
        told = f"seed {seed}, {file.relative_to(folder)}"
        try:
            model = sdteach.load_model(folder, device="cpu")
        except ValueError as error:
            assert "always works" in str(error), told  # noqa: PT017
            assert len(str(error)) < 1000, told  # noqa: PT017
            continue
        except BaseException as error:
            raise AssertionError(told) from error
        loaded += 1
        try:
            sdteach.generate(model, "a red car", steps=1, height=16, width=16)
        except ValueError as error:
            assert str(error).startswith("expected "), told  # noqa: PT017
        except Exception as error:
            raise AssertionError(told) from error
    assert 0 < loaded < CASES


def test_a_picture_is_not_brought_to_a_size_that_takes_the_memory(whole, tmp_path):
    """A tower that sees pictures would be given one of 30 GB."""
    folder = shutil.copytree(whole, tmp_path / "folder")
    config = folder / "feature_extractor" / "preprocessor_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"size": {"shortest_edge": 100_000}}))
    with pytest.raises(ValueError, match=r"expected shortest_edge in .* to be at most 4096, got 1e"):
        sdteach.load_model(folder, device="cpu")
