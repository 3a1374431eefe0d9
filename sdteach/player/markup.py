"""What stands still on the page: the run as plain markup, which reads and prints without the script."""

from html import escape

import numpy as np

from ..plots import latent_colours
from ..plots.chips import place_names
from ..trace import Trace
from .motion import EDGE, GRID, main_part, parts, uri, when_read

FRAMES = 8  # of the film
SHADES = 10  # of the cosine table


def article(trace: Trace, other: Trace | None, name: str, quality: int | None) -> str:
    """All that stands on the page of a run. Beside an `other` one its headings are smaller, and the settings that differ stand out."""
    level, within = ("h1", "h2") if other is None else ("h2", "h3")
    sections = [_tokens(trace), _cosines(trace), _noise(trace, quality), _words(trace), _given(trace, quality), _settings(trace, other)]
    return f"""<article class="run" aria-labelledby="{name}">
<div class="top">
<header><{level} id="{name}" class="{"long" if len(trace.prompt) > 60 else ""}">{_quoted(trace.prompt, "no words")}</{level}>
<p class="facts">{_facts(trace, other)}</p>
{_chips(trace)}</header>
{_stage(trace, quality)}
</div>
{_film(trace, quality)}
{"".join(_section(within, *section) for section in sections if section)}
</article>"""


def _section(level, title, answer, content):
    return f'<details><summary><{level}>{title}</{level}> <span class="answer">{answer}</span></summary>\n<div>{content}</div></details>\n'


def _quoted(text, instead):
    """A user's text, which may run from right to left, or what stands for none."""
    return f"<bdi>{safe(text)}</bdi>" if text.strip() else f"<i>{instead}</i>"


def _settings_of(trace):
    """Everything that was set, by name."""
    return {
        "Prompt": trace.prompt, "Negative prompt": trace.negative_prompt, "Model": trace.model, "Sampler": trace.scheduler,
        "Steps": f"{len(trace.steps)} step{'s' * (len(trace.steps) != 1)}{'' if trace.complete else ', stopped early'}",
        "Guidance": f"{trace.guidance_scale:g}" if trace.guidance_scale > 1 else "off", "Seed": str(trace.seed),
        "Size": f"{trace.width} × {trace.height} pixels", "Strength": "" if trace.strength is None else f"{trace.strength:g}",
    }  # fmt: skip


def _facts(trace, other):
    """The settings in a line; bold is what the other run has otherwise."""
    settings, others = _settings_of(trace), _settings_of(other or trace)
    lead = {"Guidance": "guidance ", "Seed": "seed ", "Negative prompt": "not: ", "Strength": "strength "}
    facts = []
    for name, value in settings.items():
        if name != "Prompt" and value:
            fact = f"{lead.get(name, '')}<bdi>{safe(value)}</bdi>"
            facts.append(f"<b>{fact}</b>" if value != others[name] else fact)
    return " ".join(f"<span>{fact}</span>" for fact in facts)


def _chips(trace):
    if not trace.tokens.words:
        return ""
    words = "".join(f"<li>{_word(trace, index, word)}</li>" for index, word in enumerate(trace.tokens.words))
    asked = "Choose a word to see where it was read" if trace.layers else "The words; where they were read was not collected in this run"
    return f'<div class="chips"><p>{asked}</p><ul>{words}</ul></div>'


def _word(trace, index, word):
    shown = f"<bdi>{safe(word)}</bdi>"
    return f'<button type="button" class="chip" data-word="{index}" aria-pressed="false">{shown}</button>' if trace.layers else (
        f'<span class="chip">{shown}</span>')  # fmt: skip


def _img(pixels, alt, quality, kind="", edge=EDGE):
    """A picture that carries itself; `kind` is its class."""
    height, width = pixels.shape[:2]
    return f'<img class="{kind}" width="{width}" height="{height}" alt="{safe(alt)}" src="{uri(pixels, quality, edge)}">'


def _figure(picture, caption, kind=""):
    return f'<figure class="{kind}"><div class="frame">{picture}</div><figcaption>{caption}</figcaption></figure>'


def _stage(trace, quality):
    """The largest picture and what belongs to its step; it begins with the result, and the last step's noise."""
    without = "the noise for the negative prompt" if trace.negative_prompt else "the noise without the words"
    names = {"latents": "latents, what the UNet sees", "uncond": without,
             "push": f"+ what guidance {trace.guidance_scale:g} adds", "noise": "= the noise it predicts"}  # fmt: skip
    shown = parts(trace.steps[-1]) if trace.steps else {}
    if "push" not in shown:
        names["noise"] = "the noise it predicts"
    if "latents" in shown:
        shown["latents"] = latent_colours(trace.final_latents)
    if main_part(trace) == "latents":
        shown.pop("latents", None)
    tiles = [_figure(_img(shown[part], told, quality, f"cells {part}"), told) for part, told in names.items() if part in shown]
    picture = _img(trace.pixels, f"the picture that was made of: {trace.prompt}", quality, "picture", 2 * EDGE)
    heat = '<canvas class="heat" role="img" aria-label="" hidden></canvas>'
    side = f'<div class="tiles n{len(tiles)}">{"".join(tiles)}</div>' if tiles else ""
    main = _figure(picture + heat, '<span class="told">the picture</span>', "main")
    return f'<div class="stage">{main}{side}</div>'


def _film(trace, quality):
    """A few of the steps from left to right: the latents above, what was predicted from them below."""
    main = main_part(trace)
    if main is None:
        return ""
    steps = [step for step in trace.steps if getattr(step, main) is not None]
    chosen = np.unique(np.linspace(0, len(steps) - 1, FRAMES).round().astype(int))
    frames = []
    for step in (steps[index] for index in chosen):
        pictures = [latent_colours(step.latents)] if step.latents is not None and main != "latents" else []
        pictures.append(step.preview if main == "preview" else latent_colours(getattr(step, main)))
        frames.append(_frame(step.index, pictures, f"step {step.index + 1}", f"t = {step.timestep:.0f}", quality))
    ends = [latent_colours(trace.final_latents)] if main != "latents" and steps[0].latents is not None else []
    frames.append(_frame(len(trace.steps), [*ends, trace.pixels], "picture", "decoded", quality))
    return f'<ol class="film" aria-label="The run as a film">{"".join(frames)}</ol>'


def _frame(index, pictures, name, told, quality):
    shown = "".join(_img(pixels, "", quality, "cells" if max(pixels.shape) <= 2 * GRID else "", EDGE // 4) for pixels in pictures)
    return f'<li><button type="button" class="jump" data-step="{index}">{shown}<span>{name}</span><small>{told}</small></button></li>'


def _tokens(trace):
    tokens = trace.tokens
    padding = len(tokens.ids) - tokens.end - 1
    chips = [f'<li class="{"special" if place in (0, tokens.end) else ""}"><span class="piece"><bdi>{safe(name)}</bdi></span>'
             f'<span class="id">{tokens.ids[place]}</span></li>' for place, name in enumerate(place_names(tokens))]  # fmt: skip
    if padding:
        chips.append(f'<li class="special"><span class="piece">+ {padding}</span><span class="id">padding</span></li>')
    cut_off = f'<p class="cut"><strong>Cut off, never read:</strong> <bdi>{safe(tokens.dropped)}</bdi></p>' if tokens.dropped else ""
    return ("Words become tokens", f"{len(tokens.words)} words, {tokens.end + 1} tokens, {len(tokens.ids)} places",
            f"<p>Each piece of the prompt is looked up in a table; the number is all that goes on.</p><ol class=\"tokens\">{''.join(chips)}"
            f"</ol>{cut_off}")  # fmt: skip


def _cosines(trace):
    words = trace.tokens.words
    if len(words) < 2:
        return None
    cosines = trace.word_cosines()
    apart = np.where(np.triu(np.ones_like(cosines), 1) > 0, cosines, -2)
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    names = [f"<bdi>{safe(word)}</bdi>" for word in words]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(f'<tr><th scope="row">{name}</th>{"".join(_cell(value) for value in row)}</tr>'
                   for name, row in zip(names, cosines, strict=True))  # fmt: skip
    return ("Tokens become vectors", f"most alike: {names[first]} and {names[second]}, cosine {apart.max():.2f}",
            f"<p>Each word is {trace.text.shape[1]} numbers that know of the words before it. The table says how alike their directions "
            f'are: 1 the same, 0 unrelated.</p><div class="wide" tabindex="0" role="region" aria-label="Cosines of the words">'
            f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>")  # fmt: skip


def _cell(value):
    return f'<td class="shade{round(float(np.clip(value, 0, 1)) * SHADES)}">{value:.2f}</td>'


def _noise(trace, quality):
    if not trace.steps or trace.steps[0].latents is None:
        return None
    given = trace.start is not None or trace.small is not None
    begins = "It begins as a picture under noise" if given and (trace.strength or 1) < 1 else "It begins as noise"
    channels, numbers = trace.final_latents.shape[1], trace.final_latents.size
    tiles = _channels(trace.steps[0].latents, "at the start", quality) + _channels(trace.final_latents, "at the end", quality)
    return (begins, f"{numbers:,} numbers from seed {trace.seed}",
            f"<p>The loop works on {numbers:,} numbers in {channels} channels, {trace.pixels.size / numbers:.0f} times fewer than the "
            f'picture has. Dark is −3, bright is 3.</p><div class="row">{"".join(tiles)}</div>')  # fmt: skip


def _channels(latents, when, quality):
    """Every channel of latents as a gray picture."""
    told = [f"channel {index} {when}" for index in range(latents.shape[1])]
    grays = [latent_colours(np.repeat(latents[:, [index]], 3, 1)) for index in range(latents.shape[1])]
    return [_figure(_img(gray, name, quality, "cells"), name) for gray, name in zip(grays, told, strict=True)]


def _words(trace):
    """A map for each word; the script draws them."""
    if not trace.layers or not trace.tokens.words:
        return None
    maps = [_figure(f'<canvas class="of-word heat" role="img" aria-label="" data-word="{index}"></canvas>', f"<bdi>{safe(word)}</bdi>")
            for index, word in enumerate(trace.tokens.words)]  # fmt: skip
    scale = '<canvas class="scale" role="img" aria-label="colour scale, from little to most"></canvas>'
    return ("Where each word was read", f"cross-attention {when_read(trace)}",
            f"<p>At each position the UNet asks which words matter there. Bright is where the word was read most, compared with itself "
            f'elsewhere. <span class="key">little {scale} most</span></p><div class="row">{"".join(maps)}</div>')  # fmt: skip


def _given(trace, quality):
    """What the run was given besides words."""
    shown = []
    if trace.start is not None:
        shown.append(_figure(_img(trace.start, "the picture that the run began with", quality), "the picture it began with"))
    if trace.mask is not None:
        mask = np.repeat(trace.mask[..., None], 3, 2).astype(np.uint8) * 255
        shown.append(_figure(_img(mask, "the mask", quality), f"painted anew where white, {trace.mask.mean():.0%}"))
    if trace.small is not None:
        told = f"the small picture it had to agree with, {trace.small.shape[1]} × {trace.small.shape[0]}"
        shown.append(_figure(_img(trace.small, told, quality, "cells"), told))
    if trace.layout:
        boxes = "".join(f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}"/>'
                        for left, top, right, bottom in trace.layout.values())  # fmt: skip
        told = "; ".join(f"{word}: {', '.join(f'{edge:g}' for edge in box)}" for word, box in trace.layout.items())
        picture = _img(trace.pixels, "the picture with the boxes of its layout", quality)
        shown.append(_figure(f'{picture}<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{boxes}</svg>',
                             f"its layout, <bdi>{safe(told)}</bdi>"))  # fmt: skip
    names = {"start": "a picture", "mask": "a mask", "small": "a small picture", "layout": "a layout"}
    told = ", ".join(name for part, name in names.items() if getattr(trace, part) is not None)
    return ("What it was given", told, f'<div class="row">{"".join(shown)}</div>') if shown else None


def _settings(trace, other):
    settings, others = _settings_of(trace), _settings_of(other or trace)
    rows = [f'<div class="{"apart" if value != others[name] else ""}"><dt>{name}</dt><dd>{_quoted(value, "none")}</dd></div>'
            for name, value in settings.items()]  # fmt: skip
    return "Every setting", "the same settings make the same picture", f"<dl>{''.join(rows)}</dl>"


def safe(text):
    """Any text as HTML that shows just that text."""
    return escape(str(text).encode("utf-8", "replace").decode())
