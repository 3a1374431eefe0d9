"""Folders of which one file is changed or cut: each paints, or is refused in a sentence, whatever the libraries would have said."""

import json
import os
import random
import resource
import shutil
import warnings

import pytest
from transformers import CLIPImageProcessorPil, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

import sdteach

CASES = int(os.environ.get("SDTEACH_FUZZ", "100"))
VALUES = [0, 1, -1, 3, 0.5, 1e9, 10**6, -(2**40), 10**400, 1e308, float("nan"), float("inf"), True, False, None, "", "x", [], [0], [-1], [4, 8], [[]],
          {}, {"a": 1}, "9" * 400, ["x"] * 3]  # fmt: skip


def test_it():
    pass
