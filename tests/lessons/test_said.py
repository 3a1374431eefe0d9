"""What lessons say in words is what their cells have made: each comparison of the prose, held against the numbers they ship."""

import re

import nbformat
import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def made():
    """All that the cells of a lesson print, and the alt texts of their figures."""

    def read(name):
        (path,) = (ROOT / "lessons").glob(f"{name}_*.ipynb")
        outputs = [output for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for output in cell.outputs]
        alts = [re.search('alt="([^"]*)"', output.get("data", {}).get("text/html", "")) for output in outputs]
        return "\n".join([*(output.get("text", "") for output in outputs), *(alt[1] for alt in alts if alt)])

    return read


def numbers(text, pattern):
    """What the groups of a pattern found, as rows of floats; there is at least one."""
    rows = [tuple(map(float, match.groups())) for match in re.finditer(pattern, text)]
    assert rows, pattern
    return rows


N = r"([-+]?\d[\d.]*(?:e[-+]?\d+)?)"


def test_lesson_05(made):
    text = made("05")
    told = {time: (error, size) for time, error, _, _, size in numbers(text, rf"told {N}: error {N} \({N} to {N}\); it names {N}")}
    assert min(told, key=told.get) == 500, "the error is smallest where the time is the true one"
    assert told[100][1] > told[500][1] > told[900][1], "told 100, it names more than the noise, told 900 less"
    units = dict(numbers(text, rf"t = {N}: error {N}"))
    assert units[980] < units[20], "at large t noise is easy to name"
    ((noisy, _, _), (blurred, _, _), (one, _, _), (steps, _, _), _) = numbers(text, rf"{N} \({N} to {N}\) dB from the truth")
    assert max(noisy, blurred) < min(one, steps), "a blur throws noise and picture away alike"
    shapes = re.findall(rf"(?m)^(down \d|middle) .*x \d+ +[\d,]+ +{N}$", text)
    assert float(shapes[0][1]) > float(shapes[-1][1]), "a coarse level cannot hold a shape"


def test_lesson_06(made):
    text = made("06")
    for _, best, low, high in numbers(text, rf"t = {N}: {N} comes nearest to the true noise \(95 % interval {N} to {N}\)"):
        assert low - 0.3 < 1 < high + 0.3, f"an honest model's best guess belongs at 1, not {best}"
    ((_, most),) = numbers(text, rf"colourfulness from {N} to {N}; spread")
    assert most > 1, "more guidance than suits is more colour than there is"
    away = {name: float(number) for name, number in re.findall(rf"(?m)^([\w+ ]+): 8 steps are {N} of 255 away", text)}
    assert away["PNDM"] > max(away["DDIM"], away["DPM++"]), "long strides: old answers mislead it"
    ((dice, again),) = numbers(text, rf"Euler ancestral, one first noise, seeds 0 and 1: {N} of 255 apart; 0 twice: {N}")
    assert dice > again == 0


def test_lesson_07_heads(made):
    text = made("07")
    found = re.findall(r"(?m)^(.+) silent: both things in (\d+) of 12, of these (\d+)", text)
    silent = {name: (int(both), int(wrong)) for name, both, wrong in found}
    missed = max(silent, key=lambda name: silent[name][1])
    assert silent["nothing"][1] == 0
    assert silent[missed][0] >= 8, "without that layer both things are painted in their colours"
    assert silent[missed][1] >= 4, "but they stand anyhow"
    assert min(both for both, _ in silent.values()) <= 6, "without another one the things are lost"
    asked = numbers(text, rf"of 12 pictures as asked: {N} with all heads, {N} without those of [^,]+, {N} to {N} without one")
    every, none, fewest, most = asked[0]
    assert fewest >= every - 3, "any one head can be spared"
    assert fewest > none + 3, "all of them cannot"
    assert most <= 12


def test_lesson_08(made):
    text = made("08")
    assert "equal to diffusers' to the last bit: True" in text
    (noise, *_), *_ = numbers(text, rf"{N} mean of both")
    assert noise == pytest.approx(0.5**0.5, abs=0.03), "the mean of two noises is quieter"
    kept, pasted = (numbers(text, rf"{N}% of the pixels outside of the mask changed: {way}")[0][0] for way in ("decoded", "pasted back"))
    assert kept > 10 > pasted == 0
    ((free, led),) = [[iou for iou, *_ in numbers(text, rf"(?:free|led): mean IoU of thing and box {N}")]]
    assert led > free + 0.2


def test_lesson_11_score_and_ways(made):
    text = made("11")
    late, middle, early = (
        spread for _, spread, _ in numbers(text, rf"t = {N}: what the lines lead to has a spread of {N}, the star of {N}")
    )
    assert late < 0.3 < middle < early, "with much noise all lines lead to the middle"
    cosines = dict(numbers(text, rf"t = {N}: cosine .*: {N}"))
    assert min(cosines[900], cosines[400]) > 0.97, "who names noise has learned the slope"
    assert cosines[100] < cosines[400], "only where little noise must be told from the star it is not that far"
    ((ode, ode_far),) = numbers(text, rf"ODE: a point ends {N} from its end before; distance to the star {N}")
    ((sde, sde_far),) = numbers(text, rf"SDE: a point ends {N} from its end before; distance to the star {N}")
    assert ode == 0
    assert sde > 1
    assert abs(ode_far - sde_far) < 0.06, "a star as good"
    assert numbers(text, rf"difference of DDIM and Euler: {N}")[0][0] < 1e-5
    assert numbers(text, rf"difference from the library's sampler: {N}")[0][0] < 1e-5
    assert numbers(text, rf"two ends of a point lie {N} apart")[0][0] < 1e-2, "the same curves"
    assert numbers(text, rf"the ways are {N} times as long")[0][0] > 1.5, "they bend"


def test_lesson_11_mistakes(made):
    worst = {
        name: (picture, noise) for name, picture, noise in re.findall(rf"answer: ([a-z ]+); at worst .* {N}, the noise by {N}", made("11"))
    }
    assert float(worst["noise"][0]) > 1
    assert float(worst["clean picture"][1]) > 0.5
    assert max(map(float, worst["velocity"])) <= 0.1


def test_lesson_11_steps(made):
    text = made("11")
    rows = numbers(text, rf"{N} steps: DDPM {N}, flow {N}; flow minus DDPM is between {N} and {N}")
    assert [steps for steps, *_ in rows] == [1, 2, 4, 8, 16, 32]
    few, many = rows[2], rows[-1]
    assert rows[0][3] > 0, "after one step DDPM is even nearer"
    assert all(abs(flow - ddpm) < 0.08 for _, ddpm, flow, *_ in rows[2:]), "from four steps on they differ by a few hundredths"
    assert all(low < 0.02 and high > -0.02 for *_, low, high in rows[2:]), "which four seeds can hardly tell from chance"
    ((start, _),) = numbers(text, rf"noise itself from {N} to {N}")
    assert all(min(ddpm, flow) > start for _, ddpm, flow, *_ in rows[:3]), "with up to four steps they end farther than the noise began"
    assert few[4] > -0.05, "with few steps the flow is no nearer than DDPM"
    assert abs(many[2] - many[1]) < 0.06, "with many both come near"
    flows, straight = (dict(numbers(text, rf"(?m)^{name}, +{N} steps: distance {N}")) for name in ("flow", "reflow"))
    assert flows[1] > 0.8, "one step of the flow leads to the middle"
    assert straight[1] < flows[25] + 0.05, "straightened, one step arrives where 25 did"


def test_lesson_11_guidance_and_transformer(made):
    text = made("11")
    away = {scale: far for scale, far, *_ in numbers(text, rf"guidance {N}: distance {N}; mean {N}, spread {N}")}
    assert min(away, key=away.get) == 1, "for a perfect model guidance is only harm"
    spreads = [spread for _, _, _, spread in numbers(text, rf"guidance {N}: distance {N}; mean {N}, spread {N}")]
    assert spreads == sorted(spreads, reverse=True), "the half gets thinner"
    assert "16 tokens of 96 numbers; equal: True" in text
    (told,), (untold,) = numbers(text, rf"with(?: positions|out): the answer moves along, but for {N}")
    assert told > 0.01, "with positions it knows left and right"
    assert untold < 1e-4, "without them it does not"
    ((little, _, _), (much, _, _)) = numbers(text, rf"guidance [13] {N} \({N} to {N}\)")
    assert much >= little, "guidance shows more of what was asked for"


def test_lesson_11_sizes(made):
    text = made("11")
    assert "SD 3 medium: 2.0 billion, latents of 16 channels, text 4096 wide, 24 joint blocks" in text
    assert "Flux dev: 11.9 billion, latents of 16 channels, text 4096 wide, 19 joint blocks, 38 single ones" in text
    assert numbers(text, rf"of which {N}% lie between 0.25 and 0.75")[0][0] > 60
    (plain,), (shifted,) = numbers(text, rf"shift [13]: {N} of 25 above 0.5")
    assert shifted > plain


def test_lesson_12_skew(made):
    text = made("12")
    shares = {scale: (value, low, high) for scale, value, low, high in numbers(text, rf"skewed, guidance {N} {N} \({N} to {N}\)")}
    assert shares[1][2] < 0.7, "without guidance fewer are red than were shown"
    assert shares[7.5][2] > 0.7, "with much of it as many, or more"
    assert shares[1][0] < shares[3][0] < shares[7.5][0], "the more guidance, the more"
    assert shares[1][2] < shares[7.5][1]
    ((_, _, high),) = numbers(text, rf"even, guidance 7.5 {N} \({N} to {N}\)")
    assert high < shares[7.5][1], "an even set does nothing of the kind"
    boat, even_boat = (numbers(text, rf"{name}: a boat, red {N} \({N} to {N}\)")[0] for name in ("skewed", "even"))
    assert boat[0] > even_boat[0] + 0.15, "far more boats are red"
    blue, even_blue = (numbers(text, rf"{name}: a blue car, blue {N} \({N} to {N}\)")[0] for name in ("skewed", "even"))
    assert min(blue[0], even_blue[0]) > 0.5
    assert blue[2] > even_blue[1], "a blue car is blue with either set"


def test_lesson_12_by_heart(made):
    text = made("12")
    found = {times: value for times, value, *_ in numbers(text, rf"{N} times {N} \({N} to {N}\)")}
    assert found[64] > 0.5 > max(found[1], found[8]), "repetition brings it back; 8 times hardly do"
    agree = dict(numbers(text, rf"{N} times in the set: two answers differ by {N}"))
    assert agree[64] < agree[1], "what is known by heart comes back whatever the seed"
    assert numbers(text, rf"largest distance from the nearest of the eight: {N}")[0][0] < 1e-3, "a perfect answer is a copy"


def test_lesson_12_marks(made):
    text = made("12")
    assert "PNG : made by a machine; its sum is the note's: True" in text
    assert "JPEG: made by None; its sum is the note's: False" in text
    seen = {name: float(value) for name, value in re.findall(rf"(?m)^([\w, ]+): {N} times chance", text)}
    assert abs(seen["unmarked"]) < 4
    assert min(seen["marked"], seen["JPEG, quality 75"], seen["half as large and back"]) > 4
    assert abs(seen["through the VAE"]) < 4, "the VAE washes it out"
