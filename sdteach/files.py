"""Files: where packaged data lies."""

from importlib.resources import files
from pathlib import Path


def data_folder(name: str) -> Path:
    """Where packaged data lies, `name` being "assets" or "lessons": in the wheel, else in the checkout."""
    packaged = Path(str(files("sdteach"))) / "_data" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / name
