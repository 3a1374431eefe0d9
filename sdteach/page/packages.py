"""What the page runs on: files of two packages of the public npm registry, each package of one version and known by its sum."""

import base64
import hashlib
import tarfile
from io import BytesIO
from os import environ
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from platformdirs import user_cache_path

from ..files import write_whole

REGISTRY = "https://registry.npmjs.org"
# The package, the sha512 of its archive, and which of its files go where.
PACKAGES = {
    "onnxruntime-web/-/onnxruntime-web-1.30.0.tgz": (
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {"dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"},
    ),
    "@huggingface/tokenizers/-/tokenizers-0.2.0.tgz": (
        "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
        {"dist/tokenizers.min.mjs"},
    ),
}


def files(folder: Path | None = None) -> dict[str, bytes]:
    """The files by name, out of the packages' archives in `folder` or in this user's cache; what is not there is fetched and kept.

    The registry is npm's, or what $NPM_CONFIG_REGISTRY names. Raises ValueError for an archive that is not the pinned one, and, saying
    what to do, where there is no network.
    """
    folder = folder or user_cache_path("sdteach")
    return {
        Path(name).name: data
        for package, (digest, wanted) in PACKAGES.items()
        for name, data in _unpacked(_archive(package, folder, digest), wanted)
    }


def _archive(package, folder, digest):
    path, address = folder / package.rpartition("/")[2], f"{environ.get('NPM_CONFIG_REGISTRY', REGISTRY).rstrip('/')}/{package}"
    if path.is_file():
        data = path.read_bytes()
    else:
        try:
            with urlopen(address, timeout=60) as answer:
                data = answer.read()
        except (URLError, TimeoutError) as error:
            raise ValueError(f"expected {address}, got none ({getattr(error, 'reason', error)}); where there is a network, put that file "
                             f"into a folder, copy the folder here, and name it with --packages") from error  # fmt: skip
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != digest:
        raise ValueError(f"expected {address} with the sha512 that is pinned, got other bytes in {path}; delete that file, and try again")
    if not path.is_file():
        write_whole(path, data)
    return data


def _unpacked(archive, wanted):
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        for name in wanted:
            yield name, packed.extractfile(f"package/{name}").read()
