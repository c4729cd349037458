"""The first half of `gpu_sweep.sh`: what a sweep needs is packed where a registry is, and installed where none is.

    python benchmarks/gpu_carry.py pack FOLDER DATA_DIR [--python 3.12] [--there NAME,...]
    python benchmarks/gpu_carry.py unpack FOLDER PLACE

Packed are wheels for x86-64 Linux, at the versions of requirements.lock, of what a search imports and of what that asks
for, and the first half of CIFAR-10's training images. What the bare machine has is left out: torch, torchvision, numpy,
scikit-learn and torchdiffeq, in whatever version, with what they bring. `--there` names what else is left out.
Only `pack` of this needs more than the standard library.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gpu_parcel
from gpu_steps import Found, StepFailed, step

ROOT = Path(__file__).parents[1]
NEEDED = (
    "ray[tune]", "optuna", "cmaes", "greenlet", "mlflow", "hydra-core", "omegaconf", "rich", "safetensors", "pyyaml",
    "packaging",
)  # fmt: skip
THERE = ("torch", "torchvision", "numpy", "scikit-learn", "torchdiffeq", "scipy", "joblib", "threadpoolctl", "pillow")
SOURCE_ONLY = ("antlr4-python3-runtime",)  # no wheel is published: one is built, which is pure Python
GLIBC = (5, 12, 17, 24, 27, 28)  # 2.N, that wheels name; the newest is of 2018
PLATFORMS = [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux1_x86_64", "manylinux2014_x86_64"]
IMPORTED = ("ray.tune", "optuna", "mlflow", "hydra", "sqlalchemy", "torch", "torchvision")
SHOW_VERSIONS = f"""
import importlib, json, platform, sys
found = {{"python": platform.python_version()}}
for name in {IMPORTED}:
    package = sys.modules[importlib.import_module(name).__name__.partition(".")[0]]
    found[package.__name__] = package.__version__
print(json.dumps(found))
"""


# --- where a registry is ---------------------------------------------------------------------------------------------


def pack(folder: Path, data: Path, python: str, there: Sequence[str]) -> None:
    """Write the batches, and say how many megabytes each has."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another folder, or empty it.")
    from gpu_pack import pack as pack_images

    with tempfile.TemporaryDirectory() as place:
        pack_images(data, Path(place) / "packed", ["train-1"])
        pins = _pins(python, there)
        _download(pins, python, Path(place) / "wheels")
        batches = gpu_parcel.pack(Path(place), folder)
    for batch in batches:
        print(f"{batch.folder}: {batch.bytes / 1e6:.1f} MB, of {len(batch.files)} files")
    print(f"{sum(batch.bytes for batch in batches) / 1e6:.1f} MB in all, {len(pins)} wheels for Python {python}")


def _pins(python: str, there: Sequence[str]) -> list[str]:
    """Resolve what is needed, at the versions of the lock file."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) or "uv"
    command = [uv, "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--constraint", str(ROOT / "requirements.lock")]
    command += [f"--no-emit-package={name}" for name in there]
    done = subprocess.run(command, input="\n".join(NEEDED), text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout.split()


def _download(pins: Sequence[str], python: str, wheels: Path) -> None:
    built = [pin for pin in pins if pin.partition("==")[0] in SOURCE_ONLY]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    common = ["--no-deps", *(pin for pin in pins if pin not in built), "--dest", str(wheels)]
    platforms = [f"--platform={name}" for name in PLATFORMS]
    subprocess.run(
        [*pip, "download", "--only-binary=:all:", "--python-version", python, *platforms, *common], check=True
    )
    subprocess.run([*pip, "wheel", "--no-deps", *built, "--wheel-dir", str(wheels)], check=True)


# --- where none is ---------------------------------------------------------------------------------------------------


def unpack(folder: Path, place: Path, patience: float) -> None:
    step("join", 60 * patience, lambda: _join(folder, place))
    step("install", 90 * patience, lambda: _install(place))
    step("imports", 90 * patience, lambda: _imports(place))


def _join(folder: Path, place: Path) -> Found:
    files = gpu_parcel.unpack(folder, place)
    return {"files": len(files), "mb": round(sum((place / name).stat().st_size for name in files) / 1e6, 1)}


def _install(place: Path) -> Found:
    """Beside what the machine has, which a virtual environment of a virtual environment's Python would not see."""
    wheels = sorted(map(str, (place / "wheels").glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--upgrade", "--target", str(place / "site"), *wheels]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise StepFailed(done.stdout.strip())
    return {"wheels": len(wheels)}


def _imports(place: Path) -> Found:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(place / "site"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", SHOW_VERSIONS], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StepFailed(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["pack", "unpack"])
    parser.add_argument("folder", type=Path, help="where the batches are")
    parser.add_argument("place", type=Path, help="pack: where CIFAR-10 is; unpack: where to install")
    parser.add_argument("--python", default="3.12", help="the version that is packed for")
    parser.add_argument("--there", default="", metavar="NAME,...", help="what the machine has besides")
    parser.add_argument("--patience", type=float, default=1, help="a step may take so many times its seconds")
    options = parser.parse_args()
    try:
        if options.mode == "pack":
            pack(options.folder, options.place, options.python, [*THERE, *filter(None, options.there.split(","))])
        else:
            unpack(options.folder, options.place, options.patience)
    except ValueError as error:  # what was asked cannot be
        print(f"error: {str(error).replace('runtime.data_dir=DIR', 'DATA_DIR')}", file=sys.stderr)
        raise SystemExit(2) from error
    except subprocess.CalledProcessError as error:  # which has said why
        raise SystemExit(f"error: {' '.join(map(str, error.cmd[:4]))} ended with {error.returncode}") from error
    except StepFailed as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
