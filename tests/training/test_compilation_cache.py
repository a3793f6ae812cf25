"""Tests of the persistent compilation cache."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from alexnet_jax.parallel.runtime import enable_compilation_cache
from tests.conftest import process_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_cache():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    original = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in original.items():
        jax.config.update(name, value)


def cache_folder():
    return jax.config.jax_compilation_cache_dir  # type: ignore[reportAttributeAccessIssue]


def test_cache_is_in_the_cache_folder_of_the_user(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    enable_compilation_cache()
    assert cache_folder() == str(tmp_path / "cache" / "alexnet-jax")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    enable_compilation_cache()
    assert cache_folder() == str(tmp_path / "cache" / "alexnet-jax"), "an existing setting is kept"


def test_no_cache_without_a_writable_folder(no_cache, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    enable_compilation_cache()
    assert cache_folder() is None


@pytest.mark.slow
def test_second_start_compiles_nothing(photos, tmp_path):
    environment = process_environment(shared_cache=False)
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_EXPLAIN_CACHE_MISSES": "1"}

    def cache_misses(epochs):
        command = [
            sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--batch-size", "16", "--epochs", str(epochs),
            "--keep-schedule", "--data", str(photos), "--data-dir", str(tmp_path / "data"), "--run", str(tmp_path / "run"),
        ]  # fmt: skip
        stderr = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True).stderr
        return stderr.count("PERSISTENT COMPILATION CACHE MISS")

    assert cache_misses(epochs=1) >= 4
    assert cache_misses(epochs=2) == 0
