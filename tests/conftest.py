"""Checkpoints for the tests: the embedded one, and small ones of the same classes with random weights, saved to disk."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import jaxtyping
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import sdteach
from sdteach import pipeline

ROOT = Path(__file__).parents[1]
PICTUREBOOK = ROOT / "assets" / "picturebook"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Chromium's sandbox does not start for root, and the pages are our own. To it no other machine has an address.
OPTIONS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@pytest.fixture(scope="session")
def model():
    return sdteach.load_model("picturebook", device="cpu")


@pytest.fixture(scope="session")
def random_folders(tmp_path_factory):
    """Folders of random-weight pipelines by what they predict; widths, depths and heads unlike picturebook's."""
    return {kind: random_folder(tmp_path_factory.mktemp(kind), kind) for kind in ("epsilon", "v_prediction")}


@pytest.fixture(scope="session")
def random_model(random_folders):
    return sdteach.load_model(random_folders["epsilon"], device="cpu")


def random_folder(folder, prediction_type="epsilon", **unet_options):
    torch.manual_seed(11)
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, vocab_size=49408,
                       bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8, 12), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, norm_num_groups=2, sample_size=72,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        **dict(sample_size=9, block_out_channels=(16, 24, 40), layers_per_block=2, cross_attention_dim=24, norm_num_groups=4,
               down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=(2, 4, 5),
               up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True) | unet_options
    )  # fmt: skip
    scheduler = PNDMScheduler.from_config(dict(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1,
        clip_sample=False, prediction_type=prediction_type,
    ))  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer")
    StableDiffusionPipeline(vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def diffusers_latents():
    """What diffusers' own pipeline makes, from the same folder: the oracle. Returns a function -> latents (1, 4, h, w)."""
    pipelines = {}

    def run(folder, scheduler=None, seed=0, **options):
        if folder not in pipelines:
            pipelines[folder] = StableDiffusionPipeline.from_pretrained(folder)
            pipelines[folder].set_progress_bar_config(disable=True)
        pipeline = pipelines[folder]
        shipped = pipeline.scheduler
        try:
            pipeline.scheduler = (type(shipped) if scheduler is None else scheduler).from_config(shipped.config)
            return pipeline(generator=torch.Generator().manual_seed(seed), output_type="latent", **options).images
        finally:
            pipeline.scheduler = shipped

    return run


@pytest.fixture
def isolated(tmp_path):
    """Run Python code in a fresh process and an empty folder, with the network refused."""

    def run(code, *arguments, path=ROOT, text_in=None, **environment):
        paths = [str(path), str(ROOT / "tests" / "offline")]
        kept = {name: value for name, value in os.environ.items() if name not in {"SDTEACH_MODEL", "PYTHONPATH"}}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=tmp_path, text=True, capture_output=True, timeout=300, check=False,
            input=text_in, env=kept | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        )  # fmt: skip

    return run


@pytest.fixture
def unguarded():
    """As in a user's process, where nobody checks shapes and types on the way in: what is wrong must be refused by hand."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def browser():
    """Chromium, for this module only: meanwhile an event loop runs in this thread, which other tests would stumble over."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"no browser: install one of {', '.join(BROWSERS)}, or say where it is in $CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    yield page
    page.close()


def hung_on(unet):
    """What hangs on a UNet: its attention processors, and every hook of every module in it."""
    hooks = [hook for module in unet.modules() for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())]
    return {name: id(processor) for name, processor in unet.attn_processors.items()}, hooks


@contextmanager
def interrupted_after(calls):
    """The UNet's call after so many is stopped, as by Ctrl-C."""
    predict, left = pipeline.predict, iter(range(calls))

    def interrupted(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return predict(*arguments)

    with mock.patch.object(pipeline, "predict", interrupted):
        yield
