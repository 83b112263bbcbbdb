"""Outputs of the commands: whole or not at all, wherever they lead and however the command ends."""

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from attack.command import FILES, as_bytes, in_thread, refused, run, scoring

import crossentropy as ce


@pytest.fixture
def losses(arrays):
    return as_bytes(ce.cross_entropy(*arrays, reduction="none"))


def make_device(path, kind, major, minor):
    try:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
        if kind == stat.S_IFCHR:
            path.open("wb").close()
    except PermissionError:
        pytest.skip("only root makes devices, where devices work")


class TestOutputs:
    def test_pipe_is_written_to(self, files, losses):
        os.mkfifo(files / "pipe")
        with in_thread((files / "pipe").read_bytes) as read:
            assert run("eval", *FILES, "--per-row", "pipe", cwd=files).returncode == 0
        assert read == [losses]
        assert (files / "pipe").is_fifo()

    @pytest.mark.parametrize(("minor", "words"), [(3, None), (7, "device: No space left on device")])
    def test_device_stays(self, files, minor, words):
        """Null and full: devices of the test's own, for a command that replaces them would replace the system's."""
        make_device(files / "device", stat.S_IFCHR, 1, minor)
        done = run("eval", *FILES, "--per-row", "device", cwd=files)
        if words:
            refused(done, words)
        else:
            assert done.returncode == 0
        assert sorted(path.name for path in files.iterdir()) == ["device", *FILES]
        assert (files / "device").is_char_device()

    def test_standard_output(self, files, losses):
        (files / "out").symlink_to("/dev/fd/1")
        done = run("eval", *FILES, "--json", "--per-row", "out", cwd=files)
        assert done.stdout.startswith(losses)
        assert json.loads(done.stdout[len(losses) :])["rows"] == 50
        with (files / "all").open("wb") as file:
            run("eval", *FILES, "--json", "--per-row", "out", cwd=files, stdout=file)
        assert (files / "all").read_bytes() == done.stdout

    def test_link_is_followed(self, files, losses):
        (files / "folder").mkdir()
        (files / "folder" / "there").write_text("old")
        for name in ("there", "dangling"):
            (files / name).symlink_to(f"folder/{name}")
            assert run("eval", *FILES, "--per-row", name, cwd=files).returncode == 0
            assert (files / name).is_symlink()
            assert (files / "folder" / name).read_bytes() == losses

    def test_circle_of_links(self, files):
        (files / "circle").symlink_to("circle")
        refused(run("eval", *FILES, "--per-row", "circle", cwd=files), "circle: Too many levels of symbolic links")
        assert (files / "circle").is_symlink()

    def test_permissions(self, files):
        (files / "mine").write_text("")
        (files / "mine").chmod(0o640)
        for name, mode in (("mine", 0o640), ("new", 0o604)):
            run("eval", *FILES, "--per-row", name, cwd=files, umask=0o062)
            assert stat.S_IMODE((files / name).stat().st_mode) == mode

    def test_long_name(self, files, losses):
        name = "ü" * 127
        assert run("eval", *FILES, "--per-row", name, cwd=files).returncode == 0
        assert (files / name).read_bytes() == losses

    @pytest.mark.parametrize("kind", ["directory", "socket", "block device"])
    def test_refused(self, files, kind):
        place = files / "place"
        if kind == "directory":
            place.mkdir()
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(files):
                bound.bind("place")
        else:
            make_device(place, stat.S_IFBLK, 7, 250)
        before = sorted(files.iterdir())
        words = f"place: expected a file or a pipe or a character device, got a {kind}"
        refused(run("eval", *FILES, "--per-row", "place", cwd=files), words)
        refused(run("eval", "place", "targets.npy", cwd=files), f"place: expected a file or a pipe, got a {kind}")
        assert sorted(files.iterdir()) == before

    def test_two_names_of_one_file(self, files):
        (files / "old").write_text("kept")
        (files / "hard").hardlink_to(files / "old")
        (files / "soft").symlink_to("old")
        (files / "dangling").symlink_to("absent")
        (files / "input").hardlink_to(files / "logits.npy")
        before = {path: path.read_bytes() for path in files.iterdir() if path.exists()}
        for one, other in (("old", "hard"), ("soft", "old"), ("a", "./a"), ("dangling", "absent")):
            done = run("eval", *FILES, "--per-row", one, "--grad", other, cwd=files)
            refused(done, f"{Path(other)}: is named for two outputs")
        refused(run("eval", *FILES, "--grad", "input", cwd=files), "input: would overwrite an input")
        assert {path: path.read_bytes() for path in files.iterdir() if path.exists()} == before

    def test_plots(self, files):
        os.mkfifo(files / "pipe.svg")
        with in_thread((files / "pipe.svg").read_text) as read:
            assert run("explain", "--plot", "pipe.svg", cwd=files).returncode == 0
        assert "</svg>" in read[0]
        assert (files / "pipe.svg").is_fifo()
        (files / "in.png").hardlink_to(files / "targets.npy")
        done = run("explain", "--logits", "1 2", "--targets", "targets.npy", "--plot", "in.png", cwd=files)
        refused(done, "in.png: would overwrite an input")


class TestEndings:
    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    def test_signals(self, large, number):
        with scoring(large) as process:
            process.send_signal(number)
            process.send_signal(number)
            assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 128 + number
        assert (large / "losses.npy").read_text() == "kept"

    def test_nohup(self, large):
        with scoring(large, ignored=[signal.SIGHUP]) as process:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        assert process.returncode == 128 + signal.SIGTERM

    @pytest.mark.parametrize(
        "arguments", [["eval", *FILES], ["eval", *FILES, "--json"], ["explain"], ["info"], ["--help"]]
    )
    @pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
    def test_standard_output_is_full_or_closed(self, files, arguments):
        with Path("/dev/full").open("wb") as full:
            refused(run(*arguments, cwd=files, stdout=full), "standard output: No space left on device")
        read, write = os.pipe()
        os.close(read)
        done = run(*arguments, cwd=files, stdout=write)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b"")

    def test_standard_output_is_not_there(self, files, losses):
        done = run("eval", *FILES, "--per-row", "losses.npy", cwd=files, stdout=None, preexec_fn=lambda: os.close(1))
        assert (done.returncode, done.stderr) == (0, b"")
        assert (files / "losses.npy").read_bytes() == losses

    def test_pipe_of_an_output_is_closed(self, large):
        os.mkfifo(large / "pipe")
        with in_thread(lambda: (large / "pipe").open("rb").close()):
            np.save(large / "logits.npy", np.zeros((300_000, 2), np.float32))
            np.save(large / "targets.npy", np.zeros(300_000, int))
            refused(run("eval", *FILES, "--per-row", "pipe", cwd=large), "pipe: Broken pipe")

    def test_disk_is_full(self, files):
        np.save(files / "logits.npy", np.zeros((300_000, 2), np.float32))
        np.save(files / "targets.npy", np.zeros(300_000, int))

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # less than the losses

        done = run("eval", *FILES, "--per-row", "losses.npy", cwd=files, preexec_fn=limit)
        refused(done, "losses.npy: File too large")
        assert sorted(path.name for path in files.iterdir()) == FILES

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["eval"], "Missing argument"),
            (["eval", *FILES, "--per-row"], "'--per-row' requires an argument"),
            (["eval", *FILES, "--axis", "one"], "--axis: expected an integer, got 'one'"),
            (["eval", *FILES, "--no\nsuch"], "No such option: --no\\x0asuch"),
            (["score"], "No such command 'score'. (crossentropy --help tells more)"),
        ],
    )
    def test_usage_is_told_in_one_line(self, files, arguments, words):
        refused(run(*arguments, cwd=files), words)
