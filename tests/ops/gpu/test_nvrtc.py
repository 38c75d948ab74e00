"""The disk cache of compiled kernels: shared by processes, checked when read, passed over where it cannot be."""

import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import pytest

from infdiff.files import cache_folder
from infdiff.ops.gpu import nvrtc

SOURCE, ARCHITECTURE = "lattice_index.cu", "sm_90"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def compilations(monkeypatch):
    """What was compiled, not read."""
    done = []
    compile_one = nvrtc._compile

    def note(text, name, settings, architecture):
        done.append((name, settings, architecture))
        return compile_one(text, name, settings, architecture)

    monkeypatch.setattr(nvrtc, "_compile", note)
    return done


def test_code_is_compiled_once(folder, compilations):
    first = nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE) == first
    assert len(compilations) == 1
    assert len(list(folder.iterdir())) == 1


def test_the_file_depends_on_all_that_the_code_does(folder, compilations, monkeypatch):
    nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    nvrtc.machine_code(SOURCE, {"UNUSED": 1}, ARCHITECTURE)
    nvrtc.machine_code(SOURCE, {}, "sm_80")
    monkeypatch.setattr(nvrtc, "compiler_versions", lambda: "other versions")
    nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    monkeypatch.setattr(nvrtc, "driver_version", lambda: 12040)
    nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    monkeypatch.setattr(nvrtc, "read_source", lambda name: "// changed\n" + (nvrtc.SOURCES / "lattice.cuh").read_text())
    nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    assert len(compilations) == len(list(folder.iterdir())) == 6


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 5000])
def test_a_corrupted_file_is_replaced(folder, compilations, damage):
    code = nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    (file,) = folder.iterdir()
    intact = file.read_bytes()
    for content in (damage, intact[:-1], intact[:40] + bytes([intact[40] ^ 1]) + intact[41:]):
        file.write_bytes(content)
        assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE) == code
        assert file.read_bytes() == intact
    assert len(compilations) == 4


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    # A file stands where the folder should be: no user, root included, can write there.
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "occupied"))
    assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    assert [p.name for p in tmp_path.iterdir()] == ["occupied"]


def test_the_cache_is_private_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_others_may_write_is_neither_read_nor_written(folder, compilations, what):
    code = nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    (file,) = folder.iterdir()
    planted = b"other code"
    file.write_bytes(hashlib.sha256(planted).digest() + planted)
    assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE) == planted  # one's own file is believed
    if what == "link":
        moved = folder.rename(folder.with_name("elsewhere"))
        folder.symlink_to(moved)
    else:
        (folder if what == "folder" else file).chmod(0o777)
    nvrtc._distrust.cache_clear()
    with pytest.warns(UserWarning, match="can be written by others: kernels are compiled without it"):
        assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE) == code
    if what != "file":  # a bad file alone is replaced by a good one
        assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE) == code
        assert file.read_bytes().endswith(planted)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="giving files away needs root")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_another_user_owns_is_not_believed(folder, what):
    code = nvrtc.machine_code(SOURCE, {}, ARCHITECTURE)
    (file,) = folder.iterdir()
    file.write_bytes(hashlib.sha256(b"other code").digest() + b"other code")
    os.chown(folder if what == "folder" else file, 65534, 65534)
    nvrtc._distrust.cache_clear()
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert nvrtc.machine_code(SOURCE, {}, ARCHITECTURE) == code


def test_processes_may_compile_the_same_at_once(folder):
    program = (
        "import hashlib; from infdiff.ops.gpu.nvrtc import machine_code;"
        f"print(hashlib.sha256(machine_code({SOURCE!r}, {{}}, {ARCHITECTURE!r})).hexdigest())"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(results) == 1
    assert [p.suffix for p in folder.iterdir()] == [".cubin"]


def test_where_the_cache_lies(monkeypatch):
    monkeypatch.delenv("INFDIFF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/infdiff")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "infdiff"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() == Path(tempfile.gettempdir()) / f"infdiff-{os.getuid()}"


def test_parameters_are_read_from_the_source():
    kinds = nvrtc.parameters("nearest_points.cu", "nearest_points")
    assert kinds == ("pointer",) * 6 + ("int",) * 6 + ("double",)
    with pytest.raises(KeyError, match="no kernel nothing"):
        nvrtc.parameters("nearest_points.cu", "nothing")


def test_without_its_packages_the_compiler_says_what_to_install():
    program = (
        "import sys; sys.modules['cuda'] = None; sys.modules['cuda.bindings'] = None\n"
        "from infdiff.ops.gpu.nvrtc import CompileError, compiler_versions\n"
        "try: compiler_versions()\n"
        "except CompileError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "pip install 'infdiff[cuda]'" in result.stdout


def test_a_cuda_core_that_is_too_old_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", types.ModuleType("cuda.core"))
    with pytest.raises(nvrtc.CompileError, match=r"cannot be used .*: pip install --upgrade 'cuda-core>=1.0'") as error:
        nvrtc.compiler_versions()
    assert "\n" not in str(error.value)
    assert nvrtc.compiler_major() is None


def test_the_compiler_says_its_major_version():
    assert f"NVRTC {nvrtc.compiler_major()}." in nvrtc.compiler_versions()
