"""A checkpoint's networks as ONNX, for a browser: what is exported is what runs here, its cross-attention taken where the kit takes it."""

import logging
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import onnx
import torch
from jaxtyping import Int
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ..attention import cross_attention_layers, keys_values, reading


class Reads(nn.Module):
    """The text tower, from the numbers of rows in its table to what the UNet reads."""

    def __init__(self, tower: nn.Module, rows: Int[Tensor, " kept"]):
        super().__init__()
        self.tower, table = deepcopy(tower), tower.get_input_embeddings().weight
        self.tower.set_input_embeddings(nn.Embedding.from_pretrained(torch.cat([table[rows], torch.zeros_like(table[:1])])))

    def forward(self, rows):
        return self.tower(rows).last_hidden_state


class Predicts(nn.Module):
    """The UNet and what its cross-attention layers read for the last row, the mean over the heads: (places, height, width) each."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, latents, timestep, text):
        with reading(self.unet, keys_values(self.unet, text), latents.shape[2:], prompts=1) as maps:
            output = self.unet(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return output, *(maps[name][0].mean(0) for name in cross_attention_layers(self.unet))


class Decodes(nn.Module):
    """The VAE's decoder, from latents that are scaled for the UNet to a picture of -1..1."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, latents):
        return self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]


def to_onnx(network: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], batched: tuple[str, ...] = ()) -> bytes:
    """The network as one ONNX file, its `batched` inputs with any number of rows."""
    rows = {name: {0: "rows"} if name in batched else None for name in inputs}
    with torch.no_grad(), _silent():
        program = torch.onnx.export(
            network.eval(), (), kwargs=dict(inputs), output_names=outputs, dynamic_shapes=rows if batched else None, dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
    return _halved(program.model_proto).SerializeToString()


@contextmanager
def _silent():
    """Without the exporter's asides; errors still come through."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)


def _halved(model):
    """The same numbers in less room: weights that are all exactly a float16 are kept as such, and widened when the file is read."""
    widened = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.dtype == np.float32 and np.array_equal(half, values):
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
            widened.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    for node in nodes:
        node.ClearField("metadata_props")  # where in whose files it was written
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model
