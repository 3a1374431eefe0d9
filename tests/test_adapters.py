"""A LoRA and a learned word, loaded by diffusers onto the parts of the kit: its pictures stay those of diffusers."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import sdteach

from conftest import hung_on

WORDS = "a <cat-toy> on a red car"


@pytest.fixture(scope="module")
def adapter(random_folders, tmp_path_factory):
    """The file of a LoRA for the UNet and the text tower, as people train and publish them."""
    pipe, folder = StableDiffusionPipeline.from_pretrained(random_folders["epsilon"]), tmp_path_factory.mktemp("lora")
    torch.manual_seed(5)
    found = {}
    for part, layers in (("unet", ["to_q", "to_k", "to_v", "to_out.0", "conv1"]), ("text_encoder", ["q_proj", "v_proj"])):
        network = getattr(pipe, part)
        network.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=layers, init_lora_weights=False))
        found[f"{part}_lora_layers"] = get_peft_model_state_dict(network)
    pipe.save_lora_weights(folder, **found)
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("fused", [False, True])
def test_with_a_lora_and_a_learned_word_pictures_are_those_of_diffusers(random_folders, adapter, fused):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    plain = sdteach.generate(model, "a red car", steps=2, height=64, width=64)
    parts = model.vae, model.text_encoder, model.tokenizer, model.unet, model.scheduler, None, None
    pipes = (
        StableDiffusionPipeline(*parts, requires_safety_checker=False),
        StableDiffusionPipeline.from_pretrained(random_folders["epsilon"]),
    )
    for pipe in pipes:
        pipe.load_lora_weights(adapter)
        if fused:
            pipe.fuse_lora(lora_scale=0.6)
        pipe.load_textual_inversion(torch.randn(2, 24, generator=torch.Generator().manual_seed(1)), token="<cat-toy>")
    before = hung_on(model.unet)
    trace = sdteach.generate(model, WORDS, "blue", steps=4, seed=3, height=104, width=72)
    options = dict(negative_prompt="blue", num_inference_steps=4, height=104, width=72, generator=torch.Generator().manual_seed(3))
    expected = pipes[1](WORDS, output_type="latent", **options).images
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)
    assert hung_on(model.unet) == before
    assert trace.heat_map("<cat-toy>").shape == (13, 9)
    changed = sdteach.generate(model, "a red car", steps=2, height=64, width=64)
    assert not torch.equal(torch.from_numpy(plain.final_latents), torch.from_numpy(changed.final_latents))
    if not fused:
        pipes[0].unload_lora_weights()
        again = sdteach.generate(model, "a red car", steps=2, height=64, width=64)
        assert torch.equal(torch.from_numpy(plain.final_latents), torch.from_numpy(again.final_latents))
