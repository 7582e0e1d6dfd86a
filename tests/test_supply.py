"""What comes from outside: no format with code in it is read, archives and servers are not trusted, pins have hashes.

`multiprocessing` is not among what is forbidden: it pickles between a process and the children that it started itself.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import http.server
import io
import os
import re
import resource
import tarfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from harness.datasets import files
from harness.datasets.files import Archive, PublishedFile
from harness.errors import InputError
from harness.results.whole_file import put

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("ebflow", "harness", "baselines") for path in (ROOT / package).rglob("*.py"))

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("torch.load", "torch.save", "torch.hub.load", "torch.package.PackageImporter"),
    *("os.system", "os.popen", "shutil.unpack_archive", "tar.extract"),
    *("numpy.load", "np.load", "pandas.read_pickle", "pl.DataFrame.deserialize"),
}
FORBIDDEN_METHODS = {"extractall", "read_pickle", "load_state_dict_from_url"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: str) -> Iterator[str]:
    """Name what in a module could run code out of data, or a shell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom):
            imported = {f"{node.module}.{name.name}" for name in node.names}
            if (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
                yield str(node.module)
            yield from imported & FORBIDDEN_CALLS
        elif isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in FORBIDDEN_CALLS or called.rpartition(".")[2] in FORBIDDEN_METHODS:
                yield called
            yield from (
                f"{keyword.arg}=True"
                for keyword in node.keywords
                if keyword.arg in ("shell", "allow_pickle") and not is_false(keyword.value)
            )


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_that_lies_in_data(path: Path) -> None:
    assert list(dangers(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from joblib import load", "torch.load(path)", "np.load(path)", "eval(text)", "exec(text)"),
        *("from torch import load", "subprocess.run(text, shell=True)", "np.load(path, allow_pickle=True)"),
        *("tar.extractall(folder)", "yaml.load(text)\nimport yaml", "os.system(text)", "f(allow_pickle=unknown)"),
    ],
)
def test_what_would_be_found(line: str) -> None:
    assert list(dangers(line))


@pytest.mark.parametrize("line", ["model.eval()", "import ast\nast.literal_eval(text)", "run([], shell=False)"])
def test_what_is_not_meant(line: str) -> None:
    assert list(dangers(line)) == []


# Archives and files.

RECORDS = bytes(2 * 3073)
FOLDER = "cifar-10-batches-bin"


def published(content: bytes, *contents: PublishedFile, url: str = "") -> Archive:
    """An archive of this content as if it were the published one."""
    return Archive("archive", len(content), hashlib.sha256(content).hexdigest(), url, contents)


def archive(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return buffer.getvalue()


def a_member(name: str = "data_batch_1.bin", **how: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{FOLDER}/{name}")
    member.size = len(RECORDS)
    for key, value in how.items():
        setattr(member, key, value)
    return member


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[bytes], Path]:
    """Unpack an archive as if it were the published one, and return the folder of what came of it."""

    def unpack(content: bytes) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "archive").write_bytes(content)
        wanted = PublishedFile(f"{FOLDER}/data_batch_1.bin", len(RECORDS), "0" * 64)
        files.untar(published(content, wanted), folder)
        return folder

    return unpack


def test_only_what_is_asked_for_leaves_an_archive(unpack: Callable[[bytes], Path], tmp_path: Path) -> None:
    up = tarfile.TarInfo("../../up.bin")
    absolute = tarfile.TarInfo(str(tmp_path / "absolute.bin"))
    link = a_member("link", type=tarfile.SYMTYPE, linkname=str(tmp_path), size=0)
    folder = unpack(archive(up, absolute, link, a_member(mode=0o4777, uid=12345)))
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
    assert written == ["data/archive", "data/cifar-10-batches-bin/data_batch_1.bin"]
    file = folder / FOLDER / "data_batch_1.bin"
    assert file.read_bytes() == RECORDS
    assert (file.stat().st_mode & 0o7777, file.stat().st_uid) == (0o644, os.getuid())


@pytest.mark.parametrize(
    "member",
    [
        a_member(type=tarfile.SYMTYPE, linkname="/etc/hostname", size=0),
        a_member(type=tarfile.LNKTYPE, linkname="/etc/hostname", size=0),
        a_member(type=tarfile.CHRTYPE, size=0),
        a_member(type=tarfile.FIFOTYPE, size=0),
        a_member(type=tarfile.DIRTYPE, size=0),
        a_member(size=50_000_000),
        a_member("another.bin"),
    ],
    ids=["symlink", "hardlink", "device", "pipe", "folder", "large", "missing"],
)
def test_a_member_that_is_no_file_of_its_size_is_refused(
    member: tarfile.TarInfo, unpack: Callable[[bytes], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"its data_batch_1.bin is not the published file; delete it"):
        unpack(archive(member))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["archive"]


def test_a_gzip_bomb_is_unpacked_to_its_expected_size_and_no_further(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as packed:
        for _ in range(300):
            packed.write(bytes(2**20))
    archive = published(bomb.getvalue(), PublishedFile("inside", 1000, "0" * 64))
    (tmp_path / "archive").write_bytes(bomb.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="does not unpack to 1,000 published bytes"):
        archive.read(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_a_file_larger_than_the_published_one_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"large: truncated or altered \(1,000 bytes, not 10\)"):
        PublishedFile("large", 10, "0" * 64).is_in(tmp_path)
    with pytest.raises(InputError, match=r"large: truncated or altered \(11 bytes"):  # one more than there should be
        PublishedFile("large", 10, "0" * 64).content(tmp_path)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a folder, a pipe or a device"):
        PublishedFile("pipe", 10, "0" * 64).is_in(tmp_path)


def test_a_server_that_never_ends_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(2**16))
            except OSError:
                pass

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{serving.server_port}"
        try:
            with pytest.raises(InputError, match="its SHA-256 is not the published file's"):
                files.download(Archive("file", 2**21, "0" * 64, f"{address}/file", ()), tmp_path)
        finally:
            serving.shutdown()
            thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_put_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "file", b"old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        put(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_link_keeps_pointing_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    put(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="it is there and no regular file"):
            put(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


# Pins.


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", (ROOT / name).read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["ci.txt", "tools.txt"])
def test_every_pin_has_hashes_and_no_index(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    entries = re.split(r"\n(?=\S)", text.split("tox -e lock\n")[1].strip())
    assert len(entries) > 30
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+( ; [^\n]+)? \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+", entry), entry
    assert "://" not in text


def test_the_pins_are_those_of_the_constraints_and_meet_the_project_s_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    hashed = {name.lower().replace("_", "-"): version for name, version in pins("requirements/ci.txt").items()}
    for name, version in pins("constraints.txt").items():
        assert hashed.get(name, version) == version
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["peers"], *extras["test"]):
        wanted = Requirement(text)
        if wanted.name not in ("torch", project["name"]):
            assert wanted.specifier.contains(hashed[wanted.name.lower()]), wanted
    assert "torch" not in hashed
