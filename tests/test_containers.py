"""The images: both are built here from a base of our own, and the training image trains, also as a squashfs file under Slurm on two nodes.

They hold libtorch's CPU libraries only, packed into a wheel from this environment's torch; docs/containers.md says what that leaves out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import DATA, REPO
from debian import PACKAGES
from private_slurm import SCRIPTS, PrivateSlurm

pytestmark = pytest.mark.slow

BUILD = REPO / "containers" / "build.sh"
DATASET = DATA / "metaworld_mt5"
# What the programs link.
LIBTORCH = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]
CUDA_RUNTIME = ["libcudart.so.13", "libcupti.so.13"]
ISOLATION = ["--isolation", "chroot", "--network", "host"]
OFFLINE = ["--build-arg", "PIP_FLAGS=--no-index --no-deps", "--build-arg", "PACKAGES="]


def pack_torch(folder: Path) -> None:
    """Writes a wheel of torch that has its version and libtorch's CPU libraries."""
    package = Path(torch.__file__).parent
    version = torch.__version__.split("+")[0]
    runtime = package.parent / "nvidia" / "cu13" / "lib"
    files = {f"torch/lib/{name}": package / "lib" / name for name in LIBTORCH}
    files |= {f"torch/lib/{name}": runtime / name for name in CUDA_RUNTIME}
    files |= {"torch/version.py": package / "version.py"}
    info = f"torch-{version}.dist-info"
    texts = {
        "torch/__init__.py": "raise ImportError('this torch has libraries only')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: cp312-cp312-linux_x86_64\n",
    }
    record = f"{info}/RECORD"
    texts[record] = "".join(f"{name},,\n" for name in [*files, *texts, record])
    with zipfile.ZipFile(folder / f"torch-{version}-cp312-cp312-linux_x86_64.whl", "w") as archive:
        for name, path in files.items():
            archive.write(path.resolve(), name)
        for name, text in texts.items():
            archive.writestr(name, text)


class Images:
    """A store of images of the tests' own, with a small Debian as their base."""

    def __init__(self, folder: Path):
        self.folder = folder
        conf = folder / "storage.conf"
        conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n')
        self.env = os.environ | {"CONTAINERS_STORAGE_CONF": str(conf), "BUILDAH_ISOLATION": "chroot"}
        base = folder / "base.tar"
        self.run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", base)
        container = self.run("buildah", "from", "scratch").strip()
        self.run("buildah", "add", "--quiet", container, base, "/")
        self.run("buildah", "commit", "--quiet", container, "localhost/debian:bookworm")
        self.run("buildah", "rm", container)
        base.unlink()

    def run(self, *command: object) -> str:
        """What a command prints; it must succeed."""
        words = [*map(str, command)]
        result = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=1800, check=False)
        assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result.stdout

    def build(self, kind: str, wheels: Path, *flags: str) -> str:
        """Builds an image into the folder and returns its name in the store."""
        options = [
            "--engine",
            "buildah",
            "--base",
            "localhost/debian:bookworm",
            "--wheels",
            wheels,
            "--python",
            sys.base_prefix,
        ]
        printed = self.run(BUILD, kind, self.folder, *options, "--", *ISOLATION, *OFFLINE, *flags)
        (name,) = re.findall(rf"build: (localhost/hlrp-{kind}:\S+) with buildah", printed)
        return name


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The store; it is gone afterwards."""
    folder = tmp_path_factory.mktemp("images")
    images = Images(folder)
    yield images
    images.run("buildah", "rm", "--all")
    images.run("buildah", "rmi", "--all", "--force")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image_wheels(wheels, tmp_path_factory) -> Path:
    """What an image is made of."""
    folder = tmp_path_factory.mktemp("image_wheels")
    for path in wheels.glob("*.whl"):
        shutil.copy(path, folder)
    pack_torch(folder)
    return folder


@pytest.fixture(scope="module")
def training_image(images, image_wheels) -> str:
    """Its build runs `hlrp doctor` and imports the package inside."""
    return images.build("train", image_wheels, "--build-arg", "IMPORT=hlrp_rs")


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_an_image_becomes_two_dated_files_that_nothing_changes(images, training_image):
    archive = only(images.folder, "hlrp-train_*.oci.tar")
    squashed = only(images.folder, "hlrp-train_*.sqsh")
    assert re.fullmatch(r"hlrp-train_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.oci\.tar", archive.name)
    assert archive.stat().st_mode & squashed.stat().st_mode & 0o222 == 0
    with tarfile.open(archive) as tar:
        assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert list(images.folder.glob(".build.*")) == [], "nothing else is left"


def test_the_training_image_has_no_compiler_and_says_how_it_is(images, training_image):
    container = images.run("buildah", "from", training_image).strip()
    run = ["buildah", "run", "--isolation", "chroot", container, "--"]
    report = images.run(*run, "hlrp", "doctor")
    assert "decodes av1 (libdav1d)" in report
    assert re.search(rf"libtorch +{torch.__version__.split('+')[0]}, CPU only", report), report
    assert images.run(*run, "sh", "-c", "command -v cc gcc g++ clang cargo rustc || echo none") == "none\n"


def test_the_training_image_trains(images, training_image, tmp_path):
    container = images.run("buildah", "from", training_image).strip()
    mounts = ["-v", f"{DATASET}:{DATASET}:ro", "-v", f"{tmp_path}:{tmp_path}"]
    words = [
        "experiment=laq_tiny",
        f"data.sources.metaworld_mt5.root={DATASET}",
        "training.max_steps=5",
        "training.scheduler.warmup_steps=1",
        "training.log_every_n_steps=1",
        "logging.min_free_gb=0.1",
        f"logging.run_dir={tmp_path}/run",
    ]
    images.run("buildah", "run", "--isolation", "chroot", *mounts, container, "--", "hlrp", "train-laq", *words)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["step"] for line in lines) == 5


@pytest.fixture
def slurm(tmp_path):
    """Two nodes that understand the flags of Pyxis."""
    plugin = tmp_path / "container_flags.so"
    subprocess.run(["gcc", "-shared", "-fPIC", SCRIPTS / "container_flags.c", "-o", plugin], check=True)
    slurm = PrivateSlurm(tmp_path / "slurm", "--nodes", 2, "--plugstack", f"required {plugin}")
    yield slurm
    slurm.stop()


def test_the_squashfs_file_runs_on_two_nodes_with_its_environment(images, training_image, slurm, tmp_path):
    image = only(images.folder, "hlrp-train_*.sqsh")
    script = 'echo "$SLURM_PROCID $SLURMD_NODENAME $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES $(command -v hlrp)"; hlrp --version'
    flags = [
        f"--container-image={image}",
        f"--container-mounts={tmp_path}:{tmp_path}",
        f"--container-workdir={tmp_path}",
    ]
    step = ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", *flags, "bash", "-c", f"'{script}'"]
    job = slurm.submit(" ".join(step), "--nodes=2", f"--output={tmp_path}/out", "--partition=lrz-cpu")
    assert slurm.wait_for(job, timeout=120) == "COMPLETED", (tmp_path / "out").read_text()
    lines = (tmp_path / "out").read_text().splitlines()
    tasks = sorted(line for line in lines if line[0].isdigit())
    assert tasks == [f"{rank} n{rank + 1} all compute,utility /opt/hlrp/bin/hlrp" for rank in range(2)]
    assert len([line for line in lines if line.startswith("hlrp ")]) == 2


def test_the_lerobot_image_has_what_rendering_needs(images, image_wheels):
    """Without LeRobot itself and its 5 GB of packages: the system half of the image, the plugin, and the variables."""
    name = images.build("lerobot", image_wheels, "--build-arg", "LEROBOT=", "--build-arg", "CHECK=true")
    container = images.run("buildah", "from", name).strip()
    run = ["buildah", "run", "--isolation", "chroot", container, "--"]
    vendor = images.run(*run, "cat", "/usr/share/glvnd/egl_vendor.d/10_nvidia.json")
    assert json.loads(vendor)["ICD"]["library_path"] == "libEGL_nvidia.so.0"
    variables = dict(line.split("=", 1) for line in images.run(*run, "env").splitlines() if "=" in line)
    assert (variables["MUJOCO_GL"], variables["NVIDIA_DRIVER_CAPABILITIES"]) == ("egl", "all")
    environment = images.run("buildah", "inspect", "--type", "image", "--format", "{{.OCIv1.Config.Env}}", name)
    assert not re.search(r"\b(HOME|HF_HOME|TORCH_HOME|TMPDIR)=", environment), "credentials and caches are the job's"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["which image, and where to?"]),
        (["rollout", "images"], ["which image, and where to?"]),
        (["train", "images", "--fast"], ["unknown option --fast"]),
        (["train", "images", "--base"], ["--base needs a value"]),
        (["train", "images", "--wheels", "images"], ["has no wheel of hlrp_rs", "make wheel"]),
    ],
)
def test_a_build_that_cannot_begin_says_why(words, names, tmp_path):
    result = subprocess.run([BUILD, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode in (1, 2)
    assert result.stderr.count("error:") == 1
    assert all(name in result.stderr for name in [*names, "hint:"]), result.stderr


@pytest.mark.parametrize(
    ("working", "chosen"), [(["podman", "buildah"], "podman"), (["buildah"], "buildah"), ([], None)]
)
def test_a_client_of_docker_without_its_daemon_is_not_chosen(working, chosen, tmp_path):
    folder, wheels, python = tmp_path / "bin", tmp_path / "wheels", tmp_path / "python" / "bin"
    for path in [folder, wheels, python]:
        path.mkdir(parents=True)
    (wheels / "hlrp_rs-0.whl").touch()
    stand_in(python / "python3.12", "true")
    stand_in(folder / "docker", 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    for name in ["podman", "buildah"]:
        # The engine itself is told apart by how it refuses to build.
        stand_in(
            folder / name, f'[[ $1 == images ]] && exit {0 if name in working else 1}; echo "{name} builds" >&2; exit 9'
        )
    words = ["train", "images", "--wheels", wheels, "--python", python.parent]
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    result = subprocess.run([BUILD, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    if chosen:
        assert (result.returncode, result.stderr) == (9, f"{chosen} builds\n")
    else:
        assert (
            result.returncode == 1 and "neither docker (with its daemon) nor podman nor buildah works" in result.stderr
        )


def stand_in(path, script: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def test_the_scripts_are_clean():
    scripts = [*(REPO / "containers").glob("*.sh"), REPO / "scripts" / "ffmpeg.sh", REPO / "scripts" / "wheel.sh"]
    result = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
