"""Checkpoints for the tests: the embedded one, and small ones of the same classes with random weights, saved to disk."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import jaxtyping
import numpy as np
import psutil
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)  # fmt: skip
from hypothesis import HealthCheck, settings
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

os.environ["COLUMNS"] = "250"  # a sentence and a row of a table stay on their line; read when the command is imported

import sdteach
from sdteach import cli

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 104, 136
PICTUREBOOK = ROOT / "assets" / "picturebook"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Chromium's sandbox does not start for root, and the pages are our own. To it no other machine has an address.
OPTIONS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]

# A loaded machine is no fault of what is tested: nothing here is timed (tests/benchmarks is).
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("calm")


def pytest_configure():
    """Of several workers each, with what it starts, computes on its share of the cores."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(scope="session")
def model():
    return sdteach.load_model("picturebook", device="cpu")


@pytest.fixture(scope="session")
def random_folders(tmp_path_factory):
    """Folders of random-weight pipelines by what they predict; widths, depths and heads unlike picturebook's."""
    return {kind: random_folder(tmp_path_factory.mktemp(kind), kind) for kind in ("epsilon", "v_prediction")}


@pytest.fixture(scope="session")
def random_models(random_folders):
    """The models in them, each loaded once: for tests that change nothing of a model."""
    return {kind: sdteach.load_model(folder, device="cpu") for kind, folder in random_folders.items()}


@pytest.fixture(scope="session")
def random_model(random_models):
    return random_models["epsilon"]


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory):
    """A function: the name of a family of checkpoints -> the folder of a small one with random weights."""
    return cache(lambda family: FAMILIES[family](tmp_path_factory.mktemp(family)))


def random_folder(folder, prediction_type="epsilon", **unet_options):
    torch.manual_seed(11)
    scheduler = PNDMScheduler.from_config(dict(
        SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, clip_sample=False, prediction_type=prediction_type,
    ))  # fmt: skip
    return _one_tower(folder, StableDiffusionPipeline, _text_tower(), _tokenizer(), scheduler, **unet_options)


def _one_tower(folder, cls, tower, tokenizer, scheduler, **unet_options):
    cls(_vae(), tower, tokenizer, _unet(**unet_options), scheduler, None, None, requires_safety_checker=False).save_pretrained(folder)
    return folder


SCHEDULE = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def _sd_2(folder, scheduler=None):
    """OpenCLIP's text tower, whose tokenizer pads with "!" (0), and the velocity predicted."""
    torch.manual_seed(12)
    scheduler = scheduler or DDIMScheduler(
        **SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"
    )
    return _one_tower(folder, StableDiffusionPipeline, _text_tower(hidden_act="gelu"), _tokenizer("!"), scheduler)


def _sd_turbo(folder):
    return _sd_2(folder, EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing"))


def _lcm(folder):
    torch.manual_seed(13)
    scheduler = LCMScheduler(**SCHEDULE, steps_offset=1)
    return _one_tower(folder, LatentConsistencyModelPipeline, _text_tower(), _tokenizer(), scheduler, time_cond_proj_dim=14)


def _xl(folder, scheduler=None, zeros=True):
    """Two towers of different widths and depths, a UNet whose finest level has no attention, and blocks as deep as the real ones."""
    torch.manual_seed(14)
    wide = CLIPTextConfig(hidden_size=40, intermediate_size=56, num_hidden_layers=4, num_attention_heads=4, projection_dim=20, **SPECIAL)
    unet = _unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=24 + 40,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=20 + 6 * 8,
    )  # fmt: skip
    scheduler = scheduler or EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading", steps_offset=1)
    StableDiffusionXLPipeline(
        _vae(scaling_factor=0.13025), _text_tower(), CLIPTextModelWithProjection(wide), _tokenizer(), _tokenizer("!"), unet, scheduler,
        force_zeros_for_empty_prompt=zeros,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _xl_turbo(folder):
    return _xl(folder, EulerAncestralDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing"))


def _xl_velocity(folder):
    """Trained, as some descendants of XL are, from a first timestep that is all noise (Lin et al., 2024)."""
    trained = dict(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    return _xl(folder, DDIMScheduler(**SCHEDULE, **trained, clip_sample=False, set_alpha_to_one=False))


FAMILIES = {
    "sd_1": random_folder, "sd_2": _sd_2, "sd_turbo": _sd_turbo, "lcm": _lcm, "xl": _xl, "xl_turbo": _xl_turbo,
    "xl_without_zeros": partial(_xl, zeros=False), "xl_velocity": _xl_velocity,
}  # fmt: skip
SPECIAL = dict(vocab_size=49408, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)


def _tokenizer(padding="<|endoftext|>"):
    return CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer", pad_token=padding)


def _text_tower(**options):
    return CLIPTextModel(
        CLIPTextConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, **SPECIAL, **options)
    )


def _vae(**options):
    return AutoencoderKL(
        block_out_channels=(4, 8, 8, 12), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, norm_num_groups=2, sample_size=72, **options,
    )  # fmt: skip


def _unet(**options):
    return UNet2DConditionModel(
        **dict(sample_size=9, block_out_channels=(16, 24, 40), layers_per_block=2, cross_attention_dim=24, norm_num_groups=4,
               down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=(2, 4, 5),
               up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True) | options
    )  # fmt: skip


@pytest.fixture(scope="session")
def diffusers_latents():
    """What diffusers' own pipeline makes, from the same folder: the oracle. Returns a function -> latents (1, 4, h, w).

    The class is the folder's own, unless `cls` tells another one; of a batch there is a seed for each row."""
    pipelines = {}

    def run(folder, scheduler=None, seed=0, cls=DiffusionPipeline, **options):
        if (folder, cls) not in pipelines:
            pipelines[folder, cls] = cls.from_pretrained(folder)
            pipelines[folder, cls].set_progress_bar_config(disable=True)
        pipeline = pipelines[folder, cls]
        shipped = pipeline.scheduler
        generators = [torch.Generator().manual_seed(one) for one in ([seed] if isinstance(seed, int) else seed)]
        try:
            pipeline.scheduler = (type(shipped) if scheduler is None else scheduler).from_config(shipped.config)
            return pipeline(generator=generators[0] if isinstance(seed, int) else generators, **{"output_type": "latent"} | options).images
        finally:
            pipeline.scheduler = shipped

    return run


def taken_apart(trace):
    """A trace's file as its header, the facts in it read too, and its payload."""
    length = 8 + int.from_bytes(trace[:8], "little")
    header = json.loads(trace[8:length])
    header["__metadata__"]["sdteach"] = json.loads(header["__metadata__"]["sdteach"])
    return header, trace[length:]


def signed(header, payload):
    """A file as `Trace.save` writes it, its digest right, whatever is in it."""
    facts, unsigned = header["__metadata__"]["sdteach"], "0" * 64
    text = facts if not isinstance(facts, dict) else json.dumps(facts | {"sha256": unsigned} if "sha256" in facts else facts)
    head = json.dumps(header | {"__metadata__": {"sdteach": text}}, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    head += b" " * (-len(head) % 8)
    data = len(head).to_bytes(8, "little") + head + payload
    return data.replace(unsigned.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


@pytest.fixture
def isolated(tmp_path):
    """Run Python code in a fresh process and an empty folder, with the network refused."""

    def run(code, *arguments, path=ROOT, text_in=None, **environment):
        paths = [str(path), str(ROOT / "tests" / "offline")]
        kept = {name: value for name, value in os.environ.items() if name not in {"SDTEACH_MODEL", "PYTHONPATH"}}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=tmp_path, text=True, capture_output=True, timeout=1500, check=False,
            input=text_in, env=kept | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def loaded_once():
    """`load_model`, for those to whom it is nothing new: each checkpoint is loaded once."""
    return cache(sdteach.load_model)


@pytest.fixture
def sdteach_command(tmp_path, monkeypatch, capsys, loaded_once):
    """Run the command in this process, in an empty folder -> (status, stdout, stderr). It loads each checkpoint once."""
    monkeypatch.setattr(sdteach, "load_model", loaded_once)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDTEACH_MODEL", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sdteach", *map(str, arguments)])
        try:
            status = cli.main() or 0
        except SystemExit as ended:
            status = ended.code or 0
        out = capsys.readouterr()
        assert "Traceback" not in out.err
        return status, out.out, out.err

    return run


@pytest.fixture
def unguarded():
    """As in a user's process, where nobody checks shapes and types on the way in: what is wrong must be refused by hand."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(folder, *command, **environment):
    """The process of an `sdteach` command that serves, and its log, in an empty home where to reach for the network is an error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG", "SDTEACH"))}
    kept |= {"HOME": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "offline")])}
    log, command = folder / "log", [sys.executable, "-m", "sdteach", *command]
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=folder, env=kept | environment, stdout=out, stderr=out, start_new_session=True)
    try:
        yield server, log
        assert "network access attempted" not in log.read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of `sdteach demo`, with its token, and its process."""
    command = ["demo", "--no-browser", "--port", str(free_port())]
    with serving(tmp_path_factory.mktemp("demo"), *command, JUPYTER_TOKEN="known to others") as (server, log):
        while not (told := re.search(r"http://localhost(:\d+/\?token=\w+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1{told[1]}", psutil.Process(server.pid)


def kernels_of(server):
    found = set()
    for child in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found |= {child.pid} if "ipykernel_launcher" in child.cmdline() else set()
    return found


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
    left = iter(range(calls))

    def interrupt(module, _):
        if isinstance(module, UNet2DConditionModel) and next(left, None) is None:
            raise KeyboardInterrupt

    with register_module_forward_pre_hook(interrupt):
        yield


@pytest.fixture(scope="session")
def picture():
    """Coloured noise in squares, so that every latent differs from its neighbours."""
    squares = np.random.default_rng(5).integers(0, 256, (13, 17, 3), np.uint8)
    return Image.fromarray(squares).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


@pytest.fixture(scope="session")
def mask():
    """Two pieces, with edges that cut through the squares of the latents."""
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[19:90, 31:77] = region[5:12, 100:131] = True
    return region
