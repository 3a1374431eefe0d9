"""The package as a newcomer meets it: light to import, whole as a wheel, and its rooms keep to their rules."""

import itertools
import pkgutil
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from contextlib import nullcontext

import jedi
import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sdteach
from sdteach import cli

from conftest import ROOT


def test_importing_is_light(isolated):
    """What takes its time is loaded with the first name that needs it."""
    heavy = {"torch", "numpy", "PIL", "diffusers", "transformers", "matplotlib", "ipywidgets", "typer"}
    done = isolated(f"import sys, sdteach; dir(sdteach); assert not {heavy} & {{*sys.modules}}")
    assert done.returncode == 0, done.stderr


def test_tab_shows_every_public_name_and_module_and_so_does_an_editor():
    modules = {module.name for module in pkgutil.iter_modules(sdteach.__path__)} - {"__main__"}
    shown = {*dir(sdteach)}
    assert modules | {"load_model", "generate", "generate_batch", "initial_noise", "masked_out", "slerp", "to_html", "Trace"} <= shown
    for name in shown:
        assert getattr(sdteach, name).__doc__ or name == "picturebook", name
    book = "import sdteach\nsdteach."
    completed = {one.name: one for one in jedi.Script(book, path=ROOT / "book.py", project=jedi.Project(ROOT)).complete(2, 8)}
    assert shown <= {*completed}
    assert "guidance_scale" in completed["generate"].get_signatures()[0].to_string()


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(AttributeError, match=r"'load_models'; it has .*, load_model, "):
        sdteach.load_models  # noqa: B018


@pytest.mark.parametrize("check", [["ruff", "check", "."], ["ruff", "format", "--check", "."]])
def test_style(check):
    done = subprocess.run([sys.executable, "-m", *check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_rooms_import_only_what_they_may():
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.fault(14)
def test_every_package_has_a_floor_and_an_exact_version_above_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    exact = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in exact}
    for text in itertools.chain(project["dependencies"], *project["optional-dependencies"].values()):
        wanted = Requirement(text)
        assert [part.operator for part in wanted.specifier] == [">="], text
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text


PAGES = ("README.md", "CONTRIBUTING.md", "sdteach/README.md", "lessons/classroom.md", "lessons/README.md", "assets/picturebook/README.md")


def fenced(page, language):
    return [block.split("```")[0] for block in (ROOT / page).read_text("utf-8").split(f"```{language}\n")[1:]]


FEWER_STEPS = """
import inspect, sdteach
for function in map(inspect.unwrap, (sdteach.generate, sdteach.denoise, sdteach.generate_batch)):
    function.__defaults__ = tuple(8 if value == 50 else value for value in function.__defaults__)
"""


def test_the_python_of_the_pages_runs(isolated):
    blocks = fenced("README.md", "python") + fenced("sdteach/README.md", "python")
    assert len(blocks) == 4
    done = isolated("".join([FEWER_STEPS, *blocks]))
    assert done.returncode == 0, done.stderr


def commands():
    """Every use of the command in fenced shell and in `code`, as its arguments."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
        for line in "\n".join(fenced(page, "sh")).splitlines() + re.findall(r"`([^`]+)`", text):
            for part in re.split(r"&&|\|\|", line.replace("\n", " ")):
                if used := re.match(r"(?:\w+=\S+ )* *sdteach (.+)", part):
                    yield page, shlex.split(used[1], comments=True)


def test_every_command_of_the_pages_is_one(monkeypatch, tmp_path):
    """As it stands there, it is understood: command, options, numbers; the files that it names are there, and may be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: nullcontext())
    tried = set()
    for page, words in commands():
        name, *arguments = words
        known = typer.main.get_command(cli.app).commands
        assert name in known, f"{page}: {words}"
        tried.add(name)
        if name == "lessons":
            known, (name, *arguments) = known[name].commands, arguments
        if arguments and arguments != ["--help"]:  # else only its name is told
            for file in arguments:
                if re.fullmatch(r"[\w-]+\.[a-z]+", file):
                    (tmp_path / file).touch()
            known[name].make_context(name, [*itertools.takewhile(lambda word: word not in (">", "..."), arguments)])
    assert tried == {*typer.main.get_command(cli.app).commands}, "a command that no page names"


def test_what_the_pages_link_to_is_there():
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
        assert targets or page == "lessons/classroom.md", page
        for target in targets:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_assets_and_lessons(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    parts = ("constraints.txt", "assets/picturebook/model_index.json", "assets/picturebook/vocabulary.txt", "lessons/README.md",
             "lessons/00_the_whole_trip.ipynb", "lessons/exercises.toml", "lessons/stages.py", "lessons/before_and_after.toml",
             "assets/picturebook/unet/diffusion_pytorch_model.safetensors")  # fmt: skip
    for expected in (f"sdteach/_data/{part}" for part in parts):
        assert expected in names, expected
    for beside in (
        "__init__.pyi",
        "classroom/jupyter/labconfig/page_config.json",
        *(f"player/templates/{name}" for name in ("shell.html", "player.css", "player.js")),
        *(f"page/site/{name}" for name in ("live.html", "live.css", "page.mjs", "service.js")),
    ):
        assert f"sdteach/{beside}" in names, beside
    assert not [name for name in names if name.startswith(("tests/", "assets/", "lessons/"))]


@pytest.mark.fault(2)
def test_the_unpacked_wheel_makes_a_picture_in_an_empty_folder_without_a_network(wheel, isolated, tmp_path_factory, tmp_path):
    """Installed elsewhere, far from the checkout: the packaged checkpoint is found and used."""
    installed = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(installed)
    code = """
import sys, sdteach
from sdteach.cli import main
assert sys.argv.pop(1) in sdteach.__file__
main()
"""
    done = isolated(code, installed, "generate", "a red car", "--out", "car.png", "--steps", "2", path=installed)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["car.png"]
