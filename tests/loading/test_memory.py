"""Too little memory, and numbers too large for half precision: what is done about it, what is said, and that all works afterwards."""

import contextlib
import gc
import operator
import warnings
import weakref
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler
from PIL import Image
from transformers import CLIPImageProcessorPil

import sdteach
from sdteach import cli, edits, pipeline, text_encoder, unet, widgets
from sdteach.loading import memory
from sdteach.model import fingerprint
from sdteach.records import StepRecord
from sdteach.vae import latents_to_images, preview

from conftest import hung_on, interrupted_after

FULL = "CUDA out of memory. Tried to allocate 7.00 GiB."


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError(FULL)


@pytest.fixture
def fresh(random_folders):
    return sdteach.load_model(random_folders["epsilon"], device="cpu")


def painted(model):
    return sdteach.generate(model, "a red car", steps=2, collect=("latents",))


def test_offloaded_weights_paint_the_same_picture(random_folders, fresh):
    with warnings.catch_warnings(action="error"):
        offloaded = sdteach.load_model(random_folders["epsilon"], device="cpu", offload=True)
    for part in ("text_encoder", "vae", "unet"):
        assert all(parameter.is_meta for parameter in getattr(offloaded, part).parameters()), "nothing stays where it works"
    assert np.array_equal(painted(offloaded).pixels, painted(fresh).pixels)
    picture = Image.new("RGB", (72, 72), "red")
    assert torch.equal(sdteach.image_to_latents(offloaded, picture).latents, sdteach.image_to_latents(fresh, picture).latents)
    assert fingerprint(offloaded.unet) == fingerprint(fresh.unet)
    assert "weights in the CPU's memory" in memory.placement(offloaded)
    assert memory.placement(fresh) == "cpu, float32"


@pytest.mark.fault(8)
def test_weights_that_do_not_fit_are_offloaded_and_it_is_said(random_folders, fresh, monkeypatch):
    to, moved = torch.nn.Module.to, []

    def tight(part, *arguments, **options):
        if moved.append(part) or len(moved) == 2:
            out_of_memory()
        return to(part, *arguments, **options)

    monkeypatch.setattr(memory, "cpu_offload", mock.Mock(wraps=memory.cpu_offload))
    parts = [fresh.text_encoder, fresh.vae, fresh.unet]
    monkeypatch.setattr(torch.nn.Module, "to", tight)
    for part in parts:
        monkeypatch.setattr(part, "to", tight.__get__(part))
    with pytest.warns(UserWarning, match="too little memory for this checkpoint"):
        memory.settle(parts, torch.device("cpu"))
    assert memory.cpu_offload.call_count == 3
    monkeypatch.undo()
    assert painted(fresh).complete


class Part(torch.nn.Linear):
    """A part on a device that holds only so many of them; the device is none that there is."""

    device, room, there = torch.device("cpu"), 2, []

    def to(self, device):
        self.there[:] = [part for part in self.there if part is not self]
        if torch.device(device).type != "cpu":
            if len(self.there) == self.room:
                out_of_memory()
            self.there.append(self)
        self.device = torch.device(device)
        return self


@pytest.fixture
def small_device(monkeypatch):
    def offloaded(part, _):
        part._hf_hook = "travels"

    monkeypatch.setattr(memory, "cpu_offload", offloaded)
    monkeypatch.setattr(Part, "there", [])
    return torch.device("meta")


@pytest.mark.fault(8)
def test_a_second_model_that_does_not_fit_beside_the_first_sends_it_to_the_cpus_memory(small_device):
    first, second = ([Part(2, 2), Part(2, 2)] for _ in range(2))
    with warnings.catch_warnings(action="error"):
        memory.settle(first, small_device)
    with pytest.warns(UserWarning, match=r"for two checkpoints.*`del` a model") as said:
        memory.settle(second, small_device)
    assert len(said) == 1
    assert second == Part.there
    assert [hasattr(part, "_hf_hook") for part in (*first, *second)] == [True, True, False, False]


def test_a_second_model_that_does_not_fit_alone_travels_too(small_device):
    first, second = [Part(2, 2)], [Part(2, 2) for _ in range(3)]
    memory.settle(first, small_device)
    with pytest.warns(UserWarning, match="too little memory") as said:
        memory.settle(second, small_device)
    assert ["two checkpoints" in str(said[0].message), "this checkpoint" in str(said[1].message), len(said)] == [True, True, 2]
    assert Part.there == []
    assert all(hasattr(part, "_hf_hook") for part in first + second)


def test_a_model_that_is_let_go_of_makes_room_unasked(small_device):
    first, second = ([Part(2, 2), Part(2, 2)] for _ in range(2))
    memory.settle(first, small_device)
    Part.there.clear()  # as the device's allocator does when nobody holds the weights
    del first
    with warnings.catch_warnings(action="error"):
        memory.settle(second, small_device)
    assert not any(hasattr(part, "_hf_hook") for part in second)


def worked_with(model):
    """All that hangs something on a model, keeps something of it, or stops midway."""
    trace = sdteach.generate(model, "a red car", steps=2, collect=("latents", "x0", "attention", "attention_heads", "preview"))
    preview(model, torch.zeros(1, 4, 9, 9))
    with (edits.reweighted(model, [2], 2.0), unet.feature_maps(model), edits.skips_scaled(model, {0: 0.5}),
          contextlib.suppress(KeyboardInterrupt), interrupted_after(1)):  # fmt: skip
        sdteach.generate(model, "a red car", steps=2)
    next(sdteach.denoise(model, "a red car", steps=3))
    text_encoder.self_attention(model, "a red car")
    pipeline.generate_batch(model, ["a red car"] * 2, [0, 1], steps=1)
    explorers = [widgets.token_explorer(partial(sdteach.tokenize, model), "a red car"),
                 widgets.vector_explorer(partial(text_encoder.word_cosines, model), "a red car", "a car"),
                 widgets.run_scrubber(trace, partial(sdteach.latents_to_image, model))]  # fmt: skip
    for explorer in explorers:
        explorer.close()
    return trace


@pytest.mark.parametrize("offload", [False, True])
def test_nothing_keeps_a_model_that_was_worked_with(random_folders, offload):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu", offload=offload)
    parts = [weakref.ref(part) for part in (model, *model.networks.values())]
    trace = worked_with(model)
    del model
    if offload:
        sdteach.load_model(random_folders["epsilon"], device="cpu")  # which collects
    else:
        gc.collect()  # as Python does at times; explorers and their sliders hold each other
    assert [part() for part in parts] == [None] * 4
    assert trace.complete


def test_a_model_loaded_twice_is_two(random_folders, fresh):
    again = sdteach.load_model(random_folders["epsilon"], device="cpu")
    assert not {*map(id, fresh.networks.values())} & {*map(id, again.networks.values())}


def test_on_cuda_weights_lie_with_the_channels_last(fresh, monkeypatch):
    monkeypatch.setattr(memory, "cpu_offload", lambda *_: None)
    memory.settle([fresh.unet], torch.device("cuda"), offload=True)
    assert fresh.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_another_error_while_moving_is_no_matter_of_memory(fresh, monkeypatch):
    monkeypatch.setattr(fresh.unet, "to", mock.Mock(side_effect=RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="ours"):
        memory.settle([fresh.unet], torch.device("cpu"))


class Harmless(torch.nn.Module):
    """A safety checker that objects to nothing."""

    def forward(self, images, clip_input):
        return images, [False]


@pytest.fixture
def checked(fresh):
    extractor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    return replace(fresh, safety_checker=Harmless(), feature_extractor=extractor)


def whole_run(model, **options):
    return sdteach.generate(model, "a red car", steps=2, **options)


RED = Image.new("RGB", (72, 72), "red")
KEYS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
# What runs out of memory, and what each public function is doing then.
STAGES = [
    ("text_encoder", "forward", "the text tower", lambda model: sdteach.encode_text(model, "a red car")),
    ("text_encoder", "forward", "the text tower", whole_run),
    (KEYS, "forward", "the text's keys and values", whole_run),
    ("vae.encoder", "forward", "the VAE's encoder", lambda model: sdteach.image_to_latents(model, RED)),
    ("vae.encoder", "forward", "the VAE's encoder", partial(whole_run, image=RED)),
    ("unet.mid_block", "forward", "the UNet", whole_run),
    ("unet.mid_block", "forward", "the UNet", lambda model: sdteach.unet_step(model, torch.zeros(1, 4, 9, 9), 500,
                                                                              *map(partial(sdteach.encode_text, model), ("a car", "")))),
    ("unet.mid_block", "forward", "the UNet, drawn to a layout", partial(whole_run, layout={"car": (0, 0, 0.5, 1)})),
    (PNDMScheduler, "step", "the sampler", lambda model: [*sdteach.denoise(model, "a red car", steps=2)]),
    (StepRecord, "__init__", "what is kept of the run", whole_run),
    ("vae.decoder", "forward", "the VAE's decoder", lambda model: sdteach.latents_to_image(model, torch.zeros(1, 4, 9, 9))),
    ("vae.decoder", "forward", "the VAE's decoder", whole_run),
    ("safety_checker", "forward", "the safety checker", whole_run),
]  # fmt: skip


@pytest.mark.fault(8)
@pytest.mark.parametrize(("owner", "name", "stage", "run"), STAGES)
@pytest.mark.filterwarnings("ignore:too little memory for the VAE")
def test_memory_that_runs_out_at_a_stage_is_told_with_the_remedy_and_leaves_a_model_that_works(checked, owner, name, stage, run):
    before, hung = painted(checked).pixels, hung_on(checked.unet)
    owner = operator.attrgetter(owner)(checked) if isinstance(owner, str) else owner
    with mock.patch.object(owner, name, out_of_memory), pytest.raises(torch.OutOfMemoryError) as caught:
        run(checked)
    assert caught.value.__notes__ == [f"Memory ran out in {stage}: {memory.ADVICE}."]
    assert hung_on(checked.unet) == hung
    checked.vae.disable_tiling()
    assert np.array_equal(painted(checked).pixels, before)


def test_an_error_for_want_of_memory_that_a_notebook_keeps_holds_no_tensors(fresh):
    held = []

    def full(hidden, *_, **__):
        large = hidden + 1
        held.append(weakref.ref(large))
        out_of_memory()

    with mock.patch.object(fresh.unet.mid_block, "forward", full), pytest.raises(torch.OutOfMemoryError) as caught:
        painted(fresh)
    assert caught.value.__traceback__
    assert held[0]() is None


def test_other_errors_get_no_advice(fresh):
    with mock.patch.object(fresh.unet, "forward", side_effect=RuntimeError("a fault")), pytest.raises(RuntimeError) as caught:
        painted(fresh)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.fault(8)
def test_a_picture_too_large_for_the_vae_is_decoded_and_encoded_in_tiles(fresh, monkeypatch):
    latents = torch.randn(1, 4, 18, 18, generator=torch.Generator().manual_seed(0))
    picture = Image.new("RGB", (144, 144), "red")
    monkeypatch.setattr(fresh.vae, "tile_latent_min_size", 8)
    monkeypatch.setattr(fresh.vae, "tile_sample_min_size", 64)
    for network, run in (("decoder", lambda: sdteach.latents_to_image(fresh, latents)),
                         ("encoder", lambda: sdteach.image_to_latents(fresh, picture).latents)):  # fmt: skip
        fresh.vae.disable_tiling()
        whole, part = run(), getattr(fresh.vae, network)
        forward = part.forward
        limit = (8 if network == "decoder" else 64) ** 2
        monkeypatch.setattr(part, "forward", lambda x, f=forward, n=limit: out_of_memory() if x[0, 0].numel() > n else f(x))
        with pytest.warns(UserWarning, match="in tiles, whose seams may show"):
            tiled = run()
        assert np.shape(tiled) == np.shape(whole)
        with warnings.catch_warnings(action="error"):
            run()  # once said is enough


def test_a_batch_too_large_for_the_vae_is_no_case_for_tiles(fresh):
    with mock.patch.object(fresh.vae.decoder, "forward", out_of_memory), pytest.raises(torch.OutOfMemoryError):
        latents_to_images(fresh, torch.zeros(2, 4, 9, 9))
    assert not fresh.vae.use_tiling


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.fault(6)
def test_a_picture_that_half_precision_would_leave_black_is_decoded_in_float32(random_folders, dtype, offload):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu", dtype=dtype, offload=offload)
    latents = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = fingerprint(model.vae)
    decode = type(model.vae).decode

    def narrow(vae, z, *arguments, **options):
        out = decode(vae, z, *arguments, **options)
        out.sample = out.sample * (torch.nan if z.dtype == dtype else 1)
        return out

    with mock.patch.object(type(model.vae), "decode", narrow), pytest.warns(UserWarning, match=f"the VAE left the range of {dtype}"):
        picture = sdteach.latents_to_image(model, latents)
    wide = sdteach.load_model(random_folders["epsilon"], device="cpu")
    expected = sdteach.latents_to_image(wide, latents)
    assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 2
    assert fingerprint(model.vae) == weights
    assert next(model.vae.parameters()).dtype == dtype
    assert np.asarray(sdteach.latents_to_image(model, latents)).std() > 0


@pytest.mark.fault(6)
def test_what_is_not_finite_is_named_by_stage(fresh):
    latents = torch.full((1, 4, 9, 9), torch.nan)
    with pytest.raises(ValueError, match=r"the text tower or the UNet left the range of torch\.float32"):
        sdteach.latents_to_image(fresh, latents)
    with torch.no_grad():
        fresh.vae.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="expected a finite picture from the VAE"):
        sdteach.latents_to_image(fresh, torch.zeros(1, 4, 9, 9))


def test_the_remedy_looks_at_how_a_checkpoint_was_trained_and_loaded(fresh):
    nothing = torch.full((1, 4, 9, 9), torch.inf)
    with pytest.raises(ValueError, match="a lower guidance_scale"):
        sdteach.latents_to_image(fresh, nothing)
    fresh.scheduler.register_to_config(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="set rescale_betas_zero_snr to false"):
        sdteach.latents_to_image(fresh, nothing)


def test_in_float16_the_remedy_names_bfloat16(random_folders):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu", dtype=torch.float16)
    with pytest.raises(ValueError, match=r"dtype=torch\.bfloat16 or torch\.float32"):
        sdteach.latents_to_image(model, torch.full((1, 4, 9, 9), torch.inf))


def test_memory_that_runs_out_while_loading_is_told_with_the_remedy(random_folders, monkeypatch):
    monkeypatch.setattr("sdteach.model.read_folder", out_of_memory)
    with pytest.raises(ValueError, match=r"more memory to read it into.*a smaller checkpoint.*picturebook"):
        sdteach.load_model(random_folders["epsilon"], device="cpu")


@pytest.mark.parametrize("stage", ["text_encoder.TextFeatures", "unet.UNetStep", "vae.VaeImageProcessor"])
@pytest.mark.fault(8)
def test_the_command_says_what_helps(stage, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(f"sdteach.{stage}", out_of_memory)
    monkeypatch.setattr("sys.argv", ["sdteach", "generate", "a car", "--steps", "1", "--out", str(tmp_path / "car.png")])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    told = " ".join(capsys.readouterr().err.split())
    assert "make a smaller picture" in told
    assert "--offload" in told
    assert not list(tmp_path.iterdir())
