"""Building the neighbours from the Go module proxy, once, into a cache outside the clone.

Sequentially, because the linker of kube-apiserver alone wants more memory than a small machine has twice. Each binary
is renamed into place when it is whole, so an interrupted build leaves no half one; a lock keeps two runs apart.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import gotoolchain, places, processes
from tests.lab.errors import LabError

SILENCE = 8.0
"""Seconds between two lines of progress while a build runs."""

KUBERNETES = "v1.36.3"
_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-s -w -X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36"
    f" -X {_VERSION}.gitTreeState=clean"
)


@dataclass(frozen=True)
class Recipe:
    """How one binary is built."""

    binary: str
    module: str
    package: str
    ldflags: str = "-s -w"


@dataclass(frozen=True)
class Progress:
    """Which of how many, and since when."""

    position: str
    started: float

    def say(self, what: str) -> None:
        """One line on stderr."""
        seconds = time.monotonic() - self.started
        print(f"dpu-lab: {seconds:5.0f} s  {self.position} {what}", file=sys.stderr, flush=True)


RECIPES = {
    recipe.binary: recipe
    for recipe in (
        *(
            Recipe(name, "controlplane", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS)
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        ),
        Recipe("etcd", "tools", "go.etcd.io/etcd/server/v3"),
        Recipe("kwok", "tools", "sigs.k8s.io/kwok/cmd/kwok"),
        Recipe("kubeconform", "tools", "github.com/yannh/kubeconform/cmd/kubeconform"),
    )
}


def environment(cache: Path) -> dict[str, str]:
    """Go's own caches inside ours, so that a cold build is repeatable and a clone's removal costs nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in {"GOFLAGS", "GOWORK", "GOOS", "GOARCH"}}
    return kept | {
        "GOMODCACHE": str(cache / "gomod"),
        "GOCACHE": str(cache / "gobuild"),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def key(module: str, go: Path) -> str:
    """What a module's binaries depend on: its files and the compiler."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "tools.go"):
        file = places.MODULES / module / name
        digest.update(file.read_bytes() if file.exists() else b"-")
    digest.update(repr(gotoolchain.version(go)).encode())
    return f"{module}-{digest.hexdigest()[:16]}"


def folder(recipe: Recipe, cache: Path, go: Path) -> Path:
    """Where a recipe's binary lives in the cache."""
    return cache / "bin" / key(recipe.module, go)


def ensure(names: list[str]) -> dict[str, Path]:
    """Every named binary, built where the cache lacks it."""
    cache = places.cache()
    go = gotoolchain.go(cache)
    built = {name: folder(RECIPES[name], cache, go) / name for name in names}
    if all(path.exists() for path in built.values()):
        return built
    with _locked(cache):
        missing = [name for name in names if not built[name].exists()]
        started = time.monotonic()
        for index, name in enumerate(missing, start=1):
            progress = Progress(f"[{index}/{len(missing)}]", started)
            _build(RECIPES[name], built[name], go, progress)
    return built


def module_folder(module: str, path: str) -> Path:
    """The folder in the module cache of a dependency of one of our modules, downloaded where it isn't there."""
    cache = places.cache()
    go = gotoolchain.go(cache)
    listed = subprocess.run(
        [str(go), "mod", "download", "-json", path],
        cwd=places.MODULES / module, env=environment(cache), capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in listed.stdout.splitlines():
        name, _, value = line.strip().partition(": ")
        if name == '"Dir"':
            return Path(value.strip('",'))
    raise LabError(
        f"The Go module {path} cannot be downloaded: {listed.stderr.strip() or listed.stdout.strip()}.",
        "See that the Go module proxy can be reached (GOPROXY).",
    )


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "build.lock").open("w") as lock:
        waiting = Progress("[wait]", time.monotonic())
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting.say("another dpu-lab is building")
                time.sleep(SILENCE)
        yield


def _build(recipe: Recipe, target: Path, go: Path, progress: Progress) -> None:
    """One `go build`, with a line of progress at least every SILENCE seconds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{target.name}.*"):
        stale.unlink()
    unfinished = target.parent / f".{target.name}.{os.getpid()}"
    errors = target.parent / f".{target.name}.log"
    command = [
        str(go), "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", recipe.ldflags,
        "-o", str(unfinished), recipe.package,
    ]  # fmt: skip
    cache = places.cache()
    nice = shutil.which("nice")
    with errors.open("wb") as output:
        build = subprocess.Popen(
            processes.tied([*([nice] if nice else []), *command]),
            cwd=places.MODULES / recipe.module, env=environment(cache), stdout=output, stderr=output,
        )  # fmt: skip
        try:
            _watch(build, recipe, progress)
        finally:
            if build.poll() is None:
                build.terminate()
                build.wait()
    if build.returncode != 0:
        unfinished.unlink(missing_ok=True)
        said = "\n".join(errors.read_text(errors="replace").strip().splitlines()[-12:])
        raise LabError(f"Building {recipe.binary} failed:\n{said}\n", "Mend that, then run `dpu-lab build` again.")
    errors.unlink()
    unfinished.rename(target)
    progress.say(f"{recipe.binary} is built")


def _watch(build: subprocess.Popen[bytes], recipe: Recipe, progress: Progress) -> None:
    while True:
        progress.say(f"building {recipe.binary} ({recipe.package})")
        try:
            build.wait(timeout=SILENCE)
            return
        except subprocess.TimeoutExpired:
            continue
