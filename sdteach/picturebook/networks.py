"""What the checkpoint and its judge are made of: the parameters of their classes, as networks.toml tells them."""

from ..files import data_of

NETWORKS = data_of(__file__)
