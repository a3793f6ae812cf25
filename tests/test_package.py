"""Tests that wheel and source archive contain exactly both packages, and that the wheel works without the source tree."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    f"{package.name}/{file.relative_to(package)}"
    for package in (ROOT / "src" / "alexnet_jax", ROOT / "kernels" / "alexnet_kernels")
    for file in package.rglob("*.py")
}


def run(*command, **kwargs):
    """Run a command and return its standard output."""
    return subprocess.run([*map(str, command)], check=True, text=True, stdout=subprocess.PIPE, **kwargs).stdout


@pytest.mark.slow
def test_wheel_and_source_archive(tmp_path):
    # Build in a clone, because setuptools would include files of an existing `build` folder in the wheel.
    run("git", "clone", "--quiet", ROOT, tmp_path / "source")
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", tmp_path / "source")
    (wheel,), (archive,) = (list((tmp_path / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))

    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel == PACKAGES | {
        "alexnet_jax/analysis/report.css",
        "alexnet_jax/data/ilsvrc2012.txt",
        "alexnet_jax/py.typed",
        "alexnet_kernels/py.typed",
    }
    with tarfile.open(archive) as opened:
        in_archive = {name.split("/", 1)[1] for name in opened.getnames() if name.endswith(".py")}
    assert in_archive == {("src/" if name.startswith("alexnet_jax") else "kernels/") + name for name in PACKAGES}

    # Install the wheel in a new environment that imports only the dependencies, not the source tree, from the current one.
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    site_packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = (
        "import alexnet_jax, alexnet_kernels; from alexnet_jax.data.class_names import ilsvrc_names; "
        "print(alexnet_jax.__file__, len(ilsvrc_names()))"
    )
    assert run(python, "-c", code, cwd=tmp_path).split() == [str(site_packages / "alexnet_jax" / "__init__.py"), "1000"]
    assert "60,965,224" in run(environment / "bin" / "alexnet-jax", "summary", "two_tower", cwd=tmp_path)
