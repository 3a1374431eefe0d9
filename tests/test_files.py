"""Outputs are there as a whole or not at all, in the file that the path means; sums notice every change."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sdteach.files import SUMS, damaged_files, output_path, write_sums, write_whole

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, devices and modes of files are otherwise on Windows")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.fault(16)
def test_a_new_file_has_the_usual_mode_and_one_that_is_there_keeps_its_own(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a" / "b" / "new", b"one")
        assert mode(tmp_path / "a" / "b" / "new") == 0o640
    finally:
        os.umask(before)
    path = tmp_path / "private"
    path.touch(0o600)
    write_whole(path, b"two")
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "private"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    for data in (b"one", b"two"):  # at first the link leads nowhere
        write_whole(tmp_path / "link", data)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "far" / "file").read_bytes() == data
    assert output_path(tmp_path / "link") == output_path(tmp_path / "far" / "file")


def test_a_pipe_and_a_device_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"through")
    reader.join()
    assert read == [b"through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    write_whole(os.devnull, b"away")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_whole("~/runs/a", b"one")
    assert (tmp_path / "home" / "runs" / "a").read_bytes() == b"one"
    write_whole("~no-such-user", b"two")
    assert (tmp_path / "~no-such-user").read_bytes() == b"two"


@pytest.mark.fault(16)
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name, told in (("loop", "symbolic links"), ("ü" * 128, "too long"), ("file/a", "exists|directory")):
        with pytest.raises(OSError, match=told):
            output_path(tmp_path / name)
    for name in ("ü" * 127, "x" * 255, "a" * 252 + ".up"):
        write_whole(output_path(tmp_path / name), b"it fits")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_protected_file_is_refused(tmp_path):
    (tmp_path / "a").touch(0o400)
    with pytest.raises(PermissionError, match="protected"):
        output_path(tmp_path / "a")


@pytest.mark.fault(11)
def test_who_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("crash")))
    with pytest.raises(OSError, match="crash"):
        write_whole(tmp_path / "a", b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_who_is_killed_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    killed = """
import os, signal, sys
from sdteach import files
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(sys.argv[1], b"new" * 1000)
"""
    done = subprocess.run([sys.executable, "-c", killed, tmp_path / "a"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_without_files_that_have_no_name_all_is_the_same(tmp_path, monkeypatch):
    opened, unnamed = os.open, getattr(os, "O_TMPFILE", 0)

    def refusing(path, flags, *rest, **options):
        if unnamed and flags & unnamed == unnamed:
            raise OSError("expected a file with a name")
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refusing)
    for data in (b"one", b"two"):
        write_whole(tmp_path / "a", data)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [data]


def test_sums_notice_what_changed_and_what_is_gone(tmp_path):
    assert damaged_files(tmp_path) == [SUMS]
    (tmp_path / "part one").mkdir()
    named = [tmp_path / "config.json", tmp_path / "part one" / "weights.safetensors", tmp_path / "words.txt"]
    for file in (*named, tmp_path / "README.md"):
        file.write_text(file.name)
    write_sums(tmp_path)
    assert damaged_files(tmp_path) == []
    named[0].write_text("changed")
    named[1].unlink()
    (tmp_path / "README.md").unlink()
    assert damaged_files(tmp_path) == ["config.json", "part one/weights.safetensors"]
