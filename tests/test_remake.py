"""What texts say of the checkpoint is what was measured on it."""

import json
import re

import pytest

from sdteach.picturebook.evaluation import reading
from sdteach.picturebook.evaluation.reading import shipped

import remake
from conftest import ROOT


@pytest.fixture(scope="module")
def numbers():
    return json.loads(remake.NUMBERS.read_text("utf-8"))


def test_the_numbers_were_measured_on_the_shipped_weights(numbers):
    """After new weights: python tests/remake.py"""
    assert numbers["weights"] == remake.weights()


def test_the_card_has_the_measured_numbers(numbers):
    assert remake.TABLE.search(remake.CARD.read_text("utf-8"))[0] == remake.table(numbers)


def test_a_table_has_a_row_for_every_measure_with_unit_interval_and_goal():
    numbers = {"vae_psnr": 31.23, "judge_shuffled": 0.004, "guidance_2.5": 0.5, "vae_psnr_line": 30.0, "relation": None}
    intervals = {name: [value, value] for name, value in numbers.items()}
    rows = remake.table(numbers | {"intervals": intervals, "cases": dict.fromkeys(numbers, 7)}).splitlines()[2:]
    assert rows[0] == "| VAE, encoded and decoded again | 31.2 dB | 31.2 dB to 31.2 dB | 7 | 30 dB |"
    assert rows[1] == "| the judge, shuffled captions | 0.4 % | 0.4 % to 0.4 % | 7 | at most 5 % |"
    assert rows[2] == "| one or two objects, 20 steps, guidance 2.5 | 50.0 % | 50.0 % to 50.0 % | 7 |  |"
    assert rows[3].startswith("| VAE, style line | 30.0 dB |")
    assert "| - | - to - |" in rows[4]


@pytest.mark.parametrize("page", ["README.md", "sdteach/README.md", "assets/picturebook/README.md"])
def test_no_page_states_a_number_of_the_checkpoint_by_hand(page, numbers):
    """Percentages and decibels outside of the measured table are settings or are measured elsewhere, each named here."""
    text = remake.TABLE.sub("", (ROOT / page).read_text("utf-8"))
    found = {*re.findall(r"\d+(?:\.\d+)? (?:%|dB)", text)}
    measured = {remake.shown(name, numbers[name]) for name in numbers["cases"]}
    assert not found & measured, f"{page} repeats {found & measured}; the card has them"


def test_what_is_said_of_attention_was_measured():
    truth, text = shipped(), (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for way, begins in (
        (reading.CHOSEN, "object by {:.2f} ({:.2f} to {:.2f}; mean IoU of {} painted objects)"),
        (reading.DAAM, "gives {:.2f} ({:.2f} to {:.2f})"),
    ):
        found = truth.aggregations[way].reported
        assert begins.format(found.value, found.low, found.high, found.count) in text
    for hidden, says in (("word", "vanish in {:.0%}"), ("word and later", "after it in {:.0%}"), ("control", "first word in {:.0%}")):
        assert says.format(truth.gone[hidden].value).replace("%", " %") in " ".join(text.split())
