"""The live page: how long a run takes in a browser, and what each part takes of it.

    python tests/benchmarks/page.py SITE [--steps 25] [--rounds 5]

SITE is a folder that `sdteach page` wrote. It is served on this machine and opened in Chromium ($CHROMIUM), once without threads and once
with them, as browsers allow them after the first load. For each: the milliseconds of reading the prompt, of a guided step of the UNet (the
median over all steps of all rounds, and the quartiles), of decoding, and the seconds of a whole run of so many steps as a visitor has it,
pictures drawn at every step: as the clock has it, and as Chromium counts them of all processors, which other work beside changes less.
Last, what one step takes of the networks' time in such a run.
"""

import argparse
import functools
import os
import shutil
import statistics
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import expect, sync_playwright
from rich.console import Console
from rich.table import Table

TIMED = """async ({ steps, rounds }) => {
  const { denoise } = await import("/denoise.mjs"), { loadNetworks } = await import("/networks.mjs");
  const facts = await (await fetch("/model/checkpoint.json")).json(), networks = await loadNetworks(facts, () => {});
  const took = { read: [], step: [], decode: [] }, rows = Array(facts.places).fill(0);
  async function timed(name, work) {
    const began = performance.now(), made = await work();
    took[name].push(performance.now() - began);
    return made;
  }
  const counted = { ...networks, predict: (...given) => timed("step", () => networks.predict(...given)) };
  for (let round = 0; round < rounds; round++) {
    const text = await timed("read", () => networks.read(rows));
    let last;
    const run = { text, negative: text, end: 9, seed: round, steps, guidance_scale: 7.5, sampler: facts.sampler };
    for await (const step of denoise(counted, facts, run)) last = step;
    await timed("decode", () => networks.decode(last.next_latents));
  }
  return took;
}"""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def processor_seconds(browser):
    """What all processes of the browser have used so far."""
    return sum(process["cpuTime"] for process in browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"])


def measured(browser, address, steps, rounds, threads):
    """Milliseconds by part, and of each run on the page the seconds, on the clock and of processors."""
    context = browser.new_context(service_workers="allow" if threads else "block")
    page = context.new_page()
    page.set_default_timeout(600_000)
    page.goto(address)
    notes = page.locator(".notes")
    expect(notes).to_contain_text("Painted", timeout=600_000)
    assert page.evaluate("crossOriginIsolated") == threads
    page.fill("[name=steps]", str(steps))
    runs = []
    for seed in range(rounds):
        page.wait_for_timeout(10_000)  # until the last run's steps are decoded
        page.fill("[name=seed]", str(seed))
        began = processor_seconds(browser)
        page.click(".paint")
        expect(notes).not_to_contain_text("Painted")
        expect(notes).to_contain_text("Painted", timeout=600_000)
        used = processor_seconds(browser) - began
        runs.append((float(page.inner_text(".notes").split()[2]), used))
    blank = context.new_page()  # in a page that does nothing else
    blank.set_default_timeout(600_000)
    blank.goto(f"{address}model/checkpoint.json")
    took = blank.evaluate(TIMED, {"steps": steps, "rounds": rounds})
    context.close()
    return took, runs


def told(values):
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("site")
    asked.add_argument("--steps", type=int, default=25)
    asked.add_argument("--rounds", type=int, default=5)
    options = asked.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=options.site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    table = Table("", "reading, ms", "a step, ms", "decoding, ms", f"{options.steps} steps, s", "of processors, s", "a step's share")
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for threads in (False, True):
            took, runs = measured(browser, f"http://127.0.0.1:{server.server_port}/", options.steps, options.rounds, threads)
            seconds, used = map(statistics.median, zip(*runs, strict=True))
            read, step, decode = map(statistics.median, took.values())
            share = f"{100 * step / (2 * read + options.steps * step + decode):.1f} %"
            table.add_row("threads" if threads else "one thread", *map(told, took.values()), f"{seconds:.1f}", f"{used:.1f}", share)
        browser.close()
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
