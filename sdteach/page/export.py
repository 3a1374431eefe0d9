"""A checkpoint's networks as ONNX, for a browser: what is exported is what runs here, its cross-attention taken where the kit takes it."""

import logging
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ..attention import keys_values, reading


def read(tower: nn.Module, rows: Tensor) -> Tensor:
    """Rows of the text tower's table, one for each place, as what the UNet reads."""
    return tower(rows).last_hidden_state


def predict(unet: nn.Module, latents: Tensor, timestep: Tensor, text: Tensor) -> tuple[Tensor, ...]:
    """The UNet's output, and what each cross-attention layer read for the last row, the mean over the heads: (places, height, width)."""
    projected = keys_values(unet, text)
    with reading(unet, projected, latents.shape[2:], prompts=1) as maps:
        output = unet(latents, timestep, encoder_hidden_states=text, return_dict=False)
    return *output, *(maps[layer][0].mean(0) for layer in projected)


def decode(vae: nn.Module, latents: Tensor) -> Tensor:
    """Latents that are scaled for the UNet as a picture of -1..1."""
    return vae.decode(latents / vae.config.scaling_factor).sample


def with_rows(tower: nn.Module, rows: list[int]) -> nn.Module:
    """The text tower with these rows of its table alone."""
    tower, table = deepcopy(tower), tower.get_input_embeddings().weight
    tower.set_input_embeddings(nn.Embedding.from_pretrained(table[rows]))
    return tower


class _Calling(nn.Module):
    def __init__(self, network, call):
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *inputs):
        return self.call(self.network, *inputs)


def to_onnx(network: nn.Module, call: Callable, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], *batched: str) -> bytes:
    """`call(network, *inputs)` as one ONNX file, its `batched` inputs with any number of rows."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            _Calling(network.eval(), call), (*inputs.values(),), input_names=[*inputs], output_names=outputs, external_data=False,
            dynamic_shapes={"inputs": tuple({0: "rows"} if name in batched else None for name in inputs)}, verbose=False,
        )  # fmt: skip
    return _halved(program.model_proto).SerializeToString()


def _halved(model):
    """The same numbers in less room: weights that are all exactly a float16 are kept as such, and widened when the file is read."""
    nodes = [*model.graph.node]
    for node in nodes:
        node.ClearField("metadata_props")  # where in whose files it was written
    for weight in model.graph.initializer:
        values, name = numpy_helper.to_array(weight), weight.name
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.dtype == np.float32 and np.array_equal(half, values):
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
            nodes.insert(0, helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model
