"""What goes wrong while a script runs: the download, Ctrl-C, being killed, a full disk, a second script.

FAULTS=50 in the environment sets how many runs are interrupted and how many are killed, at random moments; the
default is a few. FAULTS_SEED chooses the moments.
"""

import collections
import concurrent.futures
import errno
import functools
import gzip
import http.server
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import FOLDERS, SCRIPTS, call, run, snapshot, start
from matplotlib.image import imread
from test_data import TEST_IMAGES, TRAIN_IMAGES, make_files, note, pack, published, put  # noqa: F401 (a fixture)
from torchvision.datasets import MNIST

import data
import rendered_digits
import runs
from data import prepare
from errors import UserError

FAULTS, FAULTS_SEED = int(os.environ.get("FAULTS", 4)), int(os.environ.get("FAULTS_SEED", 0))
NAMES = {script: name for name, script in SCRIPTS.items()}
INTERRUPTED = b"interrupted: earlier results are as they were\n"

posix = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


# The download


class Server(http.server.ThreadingHTTPServer):
    """Serves files from memory as `behave(handler, contents)` does it; `asked` lists what was asked for."""
    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.behave, self.asked, self.stopped = files, well, [], threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/")
        self.server.asked.append(name)
        try:
            self.server.behave(self, self.server.files[name])
        except ConnectionError:  # the other side has had enough
            pass
        self.close_connection = True

    def answer(self, contents, length=None, status=200):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(contents)

    def log_message(self, *_):
        pass


def well(handler, contents):
    handler.answer(contents, len(contents))


def slowly(handler, contents):
    handler.answer(b"", len(contents))
    piece = 1 + len(contents) // 10
    for place in range(0, len(contents), piece):
        handler.wfile.write(contents[place : place + piece])
        time.sleep(0.01)


def stopping_half_way(handler, contents):
    handler.answer(contents[: len(contents) // 2], len(contents))
    handler.server.stopped.wait(20)


HTML = b"<!DOCTYPE html><title>Please log in to this network</title>"
ILL = {
    "cut off": lambda handler, contents: handler.answer(contents[: len(contents) // 2], len(contents)),
    "cut off unnoticed": lambda handler, contents: handler.answer(contents[: len(contents) // 2]),
    "nothing": lambda handler, contents: handler.answer(b"", 0),
    "HTML": lambda handler, contents: handler.answer(HTML, len(HTML)),
    "403": lambda handler, contents: handler.answer(HTML, len(HTML), 403),
    "404": lambda handler, contents: handler.answer(b"", 0, 404),
    "503": lambda handler, contents: handler.answer(HTML, len(HTML), 503),
    "no HTTP": lambda handler, contents: handler.wfile.write(b"\0\1\2\r\n"),
    "hanging up": lambda handler, contents: None,
    "silent": lambda handler, contents: handler.server.stopped.wait(20),
    "stopping half-way": stopping_half_way,
    "another file": lambda handler, contents: well(handler, next(
        file for file in handler.server.files.values() if file != contents)),
}


@pytest.fixture
def serve(monkeypatch):
    """Starts a server of some files on this machine and makes it torchvision's only source of MNIST."""
    servers = []

    def serve(files):
        server = Server(files)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        return server

    monkeypatch.setenv("no_proxy", "*")
    yield serve
    for server in servers:
        server.stopped.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def packed(published):  # noqa: F811
    return {f"{name}.gz": pack(contents) for name, contents in published.items()}


@pytest.mark.parametrize("behaviour", [well, slowly])
def test_mnist_is_downloaded_whole_and_without_litter(serve, published, packed, tmp_path, capsys, behaviour):  # noqa: F811
    serve(packed).behave = behaviour
    assert prepare(tmp_path) == ("MNIST", True)
    assert snapshot(tmp_path / "MNIST" / "raw") == published | packed
    printed = capsys.readouterr()
    assert "\r" not in printed.out + printed.err and printed.err == ""


@pytest.mark.parametrize("behaviour", ILL)
def test_a_download_that_fails_leaves_nothing_and_the_next_succeeds(
        serve, published, packed, tmp_path, monkeypatch, behaviour):  # noqa: F811
    monkeypatch.setattr(data, "NETWORK_TIMEOUT", 0.3)
    server, raw = serve(packed), tmp_path / "MNIST" / "raw"
    server.behave, began = ILL[behaviour], time.monotonic()
    with pytest.raises(UserError) as failed:
        prepare(tmp_path)
    assert time.monotonic() - began < 15  # a server that is silent for longer is not waited for
    for told in (f"{raw / TRAIN_IMAGES}.gz is missing", f"Put the four files into {raw}", "make MNIST=DIR",
                 "rendered_digits.py"):
        assert told in str(failed.value)
    assert snapshot(raw) == {}
    server.behave = well
    assert prepare(tmp_path) == ("MNIST", True)
    assert snapshot(raw) == published | packed


@pytest.mark.parametrize("behaviour", ["cut off", "503"])
def test_whole_files_are_kept_when_a_later_one_fails(serve, published, packed, tmp_path, behaviour):  # noqa: F811
    server, raw = serve(packed), tmp_path / "MNIST" / "raw"
    server.behave = lambda handler, contents: (
        ILL[behaviour] if contents == packed[f"{TEST_IMAGES}.gz"] else well)(handler, contents)
    with pytest.raises(UserError, match=f"{TEST_IMAGES}.gz is missing"):
        prepare(tmp_path)
    kept = list(published)[:2]
    assert snapshot(raw) == {name: contents for name, contents in (published | packed).items()
                             if name.removesuffix(".gz") in kept}
    server.behave, server.asked = well, []
    assert prepare(tmp_path) == ("MNIST", True)
    assert not {f"{name}.gz" for name in kept} & set(server.asked)


def test_a_refused_connection_and_a_second_source(serve, published, packed, tmp_path, monkeypatch):  # noqa: F811
    with pytest.raises(UserError, match="could not be downloaded .*refused"):
        prepare(tmp_path)
    serve(packed)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:1/", *MNIST.mirrors])
    assert prepare(tmp_path) == ("MNIST", True)


def test_a_tilde_in_a_folder_s_name_is_a_letter(serve, packed, tmp_path, monkeypatch):
    """--data-dir=~/mnist: the shell expands no tilde there, and torchvision must not do half of it."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    serve(packed)
    assert prepare("~/mnist") == ("MNIST", True)
    assert snapshot(home) == {} and (here / "~" / "mnist").is_dir()


def test_ctrl_c_during_a_download_or_an_unpacking_leaves_nothing(serve, published, packed, tmp_path,  # noqa: F811
                                                                 monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    server = serve(packed)
    server.behave = stopping_half_way
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert snapshot(tmp_path / "MNIST" / "raw") == {}
    put(tmp_path, packed)
    monkeypatch.setattr(data.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert snapshot(tmp_path / "MNIST" / "raw") == packed


def test_the_real_mnist_is_downloaded_by_torchvision(mnist, serve, tmp_path):
    prepare(mnist)
    files = {}
    for name in data.PACKED_DIGESTS:
        if not (mnist / "MNIST" / "raw" / name).exists():
            pytest.skip("data/ has MNIST's files unpacked only; to serve them takes the packed ones")
        files[name] = (mnist / "MNIST" / "raw" / name).read_bytes()
    server = serve(files)
    server.behave = ILL["cut off"]
    with pytest.raises(UserError, match="no MNIST"):
        prepare(tmp_path)
    server.behave = well
    assert prepare(tmp_path) == ("MNIST", True)
    assert (tmp_path / "MNIST" / "raw" / TRAIN_IMAGES).read_bytes() == gzip.decompress(files[f"{TRAIN_IMAGES}.gz"])


# Runs that stop


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A stand-in so small that a run is all imports and writing."""
    folder = tmp_path_factory.mktemp("tiny")
    rendered_digits.write(folder, train=200, test=50)
    return folder


@pytest.fixture(scope="module")
def done_before(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("done before")
    for script in SCRIPTS.values():
        call(script, "--data-dir", tiny, "--out", out, "--seed", 1000, "--epochs", 1)
    return out


@pytest.fixture
def earlier(done_before, tmp_path):
    """An output folder with the results of a run of each script, at another seed than any below."""
    return shutil.copytree(done_before, tmp_path / "out")


def assert_whole(out):
    """Every result, plot and checkpoint can be read to its end and says what its name says; return their number."""
    found = [path for folder in FOLDERS for path in (out / folder).iterdir()]
    for path in found:
        if path.suffix == ".json":
            assert path.stem == json.loads(path.read_text(encoding="utf-8"))["experiment"]
        elif path.suffix == ".png":
            assert imread(path).shape[0] > 300
        else:
            assert path.suffix == ".pt"
            assert torch.load(path, weights_only=True)["experiment"] == path.stem
            runs.load_base(path, (), torch.device("cpu"))  # compares the checksums, too
    return len(found)


def wait_for_imports(process):
    """Until the interpreter is past its own start, where Ctrl-C is not ours to handle, and imports torch."""
    maps = Path("/proc", str(process.pid), "maps")
    if not maps.exists():
        time.sleep(0.5)
    while maps.exists() and "numpy" not in maps.read_text() and "libtorch" not in maps.read_text():
        time.sleep(0.002)


def repeat(attempt):
    """attempt(turn, script, chance), FAULTS times, two at a time, with each script in turn; what they returned."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        attempts = [pool.submit(attempt, turn, list(SCRIPTS.values())[turn % 3],
                                random.Random(f"{FAULTS_SEED} {turn}")) for turn in range(FAULTS)]
    outcomes = collections.Counter(attempt.result() for attempt in attempts)
    print(f"{FAULTS} runs ended with status {dict(outcomes)}")  # seen with pytest -s
    return outcomes


def read_until_trained(process):
    """Read the rows of a run of one epoch; drawing and writing are still to come."""
    while (line := process.stdout.readline()) and not line.startswith(b"    1"):
        pass


@posix
def test_ctrl_c_at_any_moment_is_one_line_and_changes_nothing(tiny, earlier):
    before = snapshot(earlier)

    def attempt(turn, script, chance):
        process = start(script, "--data-dir", tiny, "--out", earlier, "--epochs", 100_000)
        wait_for_imports(process)
        for _ in range(chance.choice((0, 0, 0, 1, 2, 5, 50))):  # lines that it prints first: 0 is during imports
            process.stdout.readline()
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (130, INTERRUPTED)
        assert snapshot(earlier) == before
        return process.returncode

    repeat(attempt)


@posix
def test_ctrl_c_at_the_end_of_a_run_leaves_the_old_results_or_the_new(tiny, earlier, tmp_path):
    old = snapshot(earlier)

    def attempt(turn, script, chance):
        out, name = shutil.copytree(earlier, tmp_path / str(turn)), NAMES[script]
        process = start(script, "--data-dir", tiny, "--out", out, "--epochs", 1)
        read_until_trained(process)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        new = snapshot(out)
        if process.returncode == 130:
            assert stderr == INTERRUPTED and b"wrote" not in stdout
            assert new == old
        else:
            assert (process.returncode, stderr) == (0, b"") and b"wrote" in stdout
            assert new.keys() == old.keys()
            assert {path for path in new if new[path] != old[path]} == {
                str(Path(*path)) for path in (("results", f"{name}.json"), ("plots", f"{name}_loss.png"),
                                              ("checkpoints", f"{name}.pt"))}
        return process.returncode

    repeat(attempt)


@posix
def test_killed_at_random_moments_every_file_is_whole_and_a_rerun_works(tiny, earlier):
    def attempt(turn, script, chance):
        process = start(script, "--data-dir", tiny, "--out", earlier, "--epochs", 1, "--seed", turn)
        if chance.random() < 0.75:  # else at any moment from the start on
            read_until_trained(process)
        time.sleep(chance.uniform(0, 1))
        process.kill()
        process.communicate()
        assert assert_whole(earlier) == 9
        return process.returncode

    assert set(repeat(attempt)) <= {-signal.SIGKILL, 0}  # 0: done before the kill
    for script in SCRIPTS.values():
        call(script, "--data-dir", tiny, "--out", earlier, "--epochs", 1)
    assert assert_whole(earlier) == 9


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the process")


def in_child(function):
    """Run a function in a copy of this process; return how it ended (negative: by that signal)."""
    if (child := os.fork()) == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def results_of(letter, size=300_000):
    return {f"{folder}/{name}": letter * size for folder in FOLDERS for name in ("one", "two")}


@needs_fork
def test_killed_at_every_step_of_saving_each_file_is_old_or_new(tmp_path):
    def save_until(step):
        """Save, but be killed at a step."""
        calls = 0

        def counted(function):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)
            return call

        for owner, name in ((os, "replace"), (Path, "write_bytes"), (Path, "mkdir"), (os, "rmdir")):
            setattr(owner, name, counted(getattr(owner, name)))
        runs.save(tmp_path, results_of(b"b"))

    runs.save(tmp_path, results_of(b"a"))
    steps = 1
    while (ended := in_child(functools.partial(save_until, steps))) != 0:
        assert ended == -signal.SIGKILL
        for path in results_of(b""):
            assert (tmp_path / path).read_bytes() in (300_000 * b"a", 300_000 * b"b")
        runs.save(tmp_path, results_of(b"a"))  # a rerun works, too
        steps += 1
    assert steps > 15  # 6 files written, 6 moved, and folders
    assert {(tmp_path / path).read_bytes() for path in results_of(b"")} == {300_000 * b"b"}


# Full disks and folders that cannot be written


@pytest.mark.parametrize("owner, step, number", [(runs.tempfile, "mkdtemp", 1), (Path, "write_bytes", 1),
                                                 (Path, "write_bytes", 6), (runs.os, "replace", 1)])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_what_cannot_be_written_leaves_the_old_files(tmp_path, monkeypatch, owner, step, number, reason):
    runs.save(tmp_path, results_of(b"a"))
    before, right, calls = snapshot(tmp_path), getattr(owner, step), []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(reason, os.strerror(reason))
        return right(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, failing)
        with pytest.raises(UserError, match=f"cannot write below .*{os.strerror(reason)}.*another --out"):
            runs.save(tmp_path, results_of(b"b"))
    assert snapshot(tmp_path) == before


def test_a_disk_that_fills_up_while_saving_leaves_the_old_results(tiny, earlier):
    resource = pytest.importorskip("resource")
    before = snapshot(earlier)
    done = run("train_fresh.py", "--data-dir", tiny, "--out", earlier, "--epochs", 1, preexec_fn=lambda:
               resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))  # bytes; a checkpoint has 190,000
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write below {earlier}: ".encode()) and done.stderr.count(b"\n") == 1
    assert snapshot(earlier) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(tiny, earlier):
    before = snapshot(earlier)
    with open("/dev/full", "wb") as full:
        done = run("train_fresh.py", "--data-dir", tiny, "--out", earlier, stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert snapshot(earlier) == before


def test_a_reader_that_stops_reading_is_no_error(tiny, tmp_path):
    process = start("train_fresh.py", "--data-dir", tiny, "--out", tmp_path, "--epochs", 1000)
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_an_output_folder_that_vanishes_is_made_anew(tmp_path):
    runs.save(tmp_path / "gone", results_of(b"a"))
    assert snapshot(tmp_path / "gone").keys() == results_of(b"").keys() | set(FOLDERS)


# Two at once


def test_two_scripts_at_once_tear_no_file(tiny, earlier):
    processes = [start("train_fresh.py", "--data-dir", tiny, "--out", earlier, "--epochs", 1, "--seed", seed)
                 for seed in (1, 2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert (process.returncode, stderr) == (0, b"")
    assert assert_whole(earlier) == 9
    assert [path.name for path in earlier.iterdir() if path.name not in FOLDERS] == []


@needs_fork
def test_two_that_save_without_end_never_show_half_a_file(tmp_path):
    def save(letter):
        while True:
            runs.save(tmp_path, results_of(letter))

    runs.save(tmp_path, results_of(b"a"))
    children = []
    for letter in (b"a", b"b"):
        if (child := os.fork()) == 0:
            try:
                save(letter)
            finally:
                os._exit(1)
        children.append(child)
    seen = set()
    try:
        limit = time.monotonic() + 20
        while time.monotonic() < limit - 19.5 or len(seen) < 2 and time.monotonic() < limit:
            for path in results_of(b""):
                seen.add((tmp_path / path).read_bytes())
        assert [os.waitpid(child, os.WNOHANG) for child in children] == [(0, 0), (0, 0)]  # neither met an error
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert seen == {300_000 * b"a", 300_000 * b"b"}
