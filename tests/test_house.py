"""The workspace's own rules: which crate may depend on which, what the light programs link, where exceptions live."""

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from conftest import program

REPO = Path(__file__).resolve().parent.parent

# Arrows point down only. A new crate or arrow is a decision: it is entered here, in the sense of the house's plan.
# Every crate may use the engine of the configuration below it, for its one error type and the trait of hints.
CONFIG = {"hlrp-config"}
LIGHT = CONFIG | {"hlrp-schema", "hlrp-track"}
TORCH = CONFIG | {"hlrp-torch"}
ENGINE = LIGHT | TORCH | {"hlrp-data"}
MODELS = ENGINE | {"hlrp-train", "hlrp-nn"}
# Which commit a program is built from; for the crates of programs alone, because every commit builds its dependents again.
BUILD = {"hlrp-build"}
ALLOWED = {
    "hlrp-build": set(),
    "hlrp-config": set(),
    "hlrp-schema": CONFIG,
    "hlrp-track": CONFIG,
    "hlrp-slurm": LIGHT,
    "hlrp-data": LIGHT,
    "hlrp-torch": CONFIG,
    "hlrp-nn": TORCH | {"hlrp-schema"},
    "hlrp-train": ENGINE,
    "hlrp-laq": MODELS | BUILD,
    "hlrp-vla": MODELS | BUILD | {"hlrp-laq"},
    "hlrp-golden": MODELS | {"hlrp-laq", "hlrp-vla"},
    "hlrp-py": MODELS | {"hlrp-laq", "hlrp-vla"},
    "hlrp": LIGHT | BUILD | {"hlrp-slurm"},
}
LIBTORCH = {"tch", "torch-sys", "hlrp-torch"}
FFMPEG = {"ffmpeg-next", "ffmpeg-sys-next"}
# All crates but the Python bridge, as the programs are built.
CRATES = ["--workspace", "--exclude=hlrp-py"]
WITHOUT_LIBTORCH = ["hlrp-build", "hlrp-config", "hlrp-schema", "hlrp-track", "hlrp-slurm", "hlrp-data", "hlrp"]


@cache
def metadata(*flags: str) -> dict:
    """What cargo knows of the workspace and all its dependencies."""
    command = ["cargo", "metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu", *flags]
    return json.loads(subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout)


def members() -> list[dict]:
    ids = set(metadata()["workspace_members"])
    return [package for package in metadata()["packages"] if package["id"] in ids]


def arrows(packages: list[dict]) -> set[tuple[str, str]]:
    """Dependencies between workspace crates, for building as well as for testing."""
    names = {package["name"] for package in packages}
    return {(p["name"], d["name"]) for p in packages for d in p["dependencies"] if d["name"] in names}


def forbidden(found: set[tuple[str, str]]) -> list[str]:
    return sorted(f"{crate} -> {below}" for crate, below in found if below not in ALLOWED.get(crate, set()))


def reached(crate: str) -> set[str]:
    """Names of everything that `crate` builds on, directly or not; what only its tests use does not count."""
    names = {package["id"]: package["name"] for package in metadata()["packages"]}
    below = {
        node["id"]: [d["pkg"] for d in node["deps"] if any(kind["kind"] != "dev" for kind in d["dep_kinds"])]
        for node in metadata()["resolve"]["nodes"]
    }
    seen, rest = set(), [i for i, name in names.items() if name == crate and i in metadata()["workspace_members"]]
    while rest:
        package = rest.pop()
        if package not in seen:
            seen.add(package)
            rest.extend(below[package])
    return {names[package] for package in seen}


def test_every_crate_is_in_the_plan():
    assert {package["name"] for package in members()} <= ALLOWED.keys()


def test_the_plan_has_no_circle():
    placed: set[str] = set()
    while ready := {crate for crate, below in ALLOWED.items() if crate not in placed and below <= placed}:
        placed |= ready
    assert placed == ALLOWED.keys()


def test_arrows_point_down_only():
    assert forbidden(arrows(members())) == []


def test_an_arrow_that_points_up_is_noticed():
    up = {"name": "hlrp-data", "dependencies": [{"name": "hlrp-train"}]}
    sideways = {"name": "hlrp-train", "dependencies": [{"name": "hlrp-laq"}]}
    found = arrows([up, sideways, {"name": "hlrp-laq", "dependencies": []}])
    assert forbidden(found) == ["hlrp-data -> hlrp-train", "hlrp-train -> hlrp-laq"]


@pytest.mark.parametrize("crate", WITHOUT_LIBTORCH)
def test_light_crates_do_not_reach_libtorch(crate):
    if crate in {package["name"] for package in members()}:
        assert reached(crate) & LIBTORCH == set()


def test_the_search_for_libtorch_finds_it_where_it_is():
    assert reached("hlrp-laq") >= LIBTORCH


def test_the_command_reaches_no_ffmpeg():
    assert reached("hlrp") & FFMPEG == set()
    assert reached("hlrp-data") & FFMPEG, "the search finds it where it is"


def test_without_its_feature_nothing_reaches_ffmpeg():
    command = ["cargo", "tree", *CRATES, "--prefix=none", "--format={p}", "--edges=normal,build"]

    def names(*flags: str) -> set[str]:
        lines = subprocess.run([*command, *flags], cwd=REPO, check=True, capture_output=True, text=True).stdout
        return {line.split()[0] for line in lines.splitlines() if line}

    assert names("--no-default-features") & FFMPEG == set()
    assert names() & FFMPEG == FFMPEG, "the search finds it where it is"


def linked(path: str) -> str:
    """What the dynamic loader says about a program."""
    return subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout


def test_the_command_links_neither_libtorch_nor_ffmpeg():
    heavy = re.compile(r"libtorch|libc10|libav|libsw|libcuda|libpython")
    assert heavy.findall(linked(program("hlrp"))) == []
    assert heavy.findall(linked(program("hlrp-train-laq"))), "the pattern finds them where they are"


def features(edges: str, *crates: str) -> set[str]:
    """Every dependency with the features that cargo turns on when it follows `edges`; one may be built several times."""
    command = [
        "cargo",
        "tree",
        *(crates or CRATES),
        "--prefix=none",
        "--format={p}|{f}",
        f"--edges={edges}",
        "--no-dedupe",
    ]
    lines = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line for line in lines if line}


def test_no_program_links_python():
    assert "libtorch_python" not in linked(program("hlrp-train-laq"))


def test_the_bridge_is_built_on_the_crates_of_the_programs():
    """maturin builds the bridge alone. A crate with other features there would be built twice, and so would all above it."""
    programs, bridge = features("normal,build"), features("normal,build", "--package=hlrp-py")
    shared = {line.split("|")[0] for line in programs}
    assert {line for line in bridge if line.split("|")[0] in shared} <= programs


def test_what_only_tests_need_does_not_build_everything_twice():
    """A feature that only a dev-dependency asks for would rebuild that crate, and all above it, for the tests."""
    programs, tests = features("normal,build"), features("normal,build,dev")
    assert programs <= tests, programs - tests


def test_every_crate_obeys_the_one_lint_table():
    for package in members():
        manifest = tomllib.loads(Path(package["manifest_path"]).read_text())
        assert manifest.get("lints") == {"workspace": True}, package["name"]


def rust_files() -> list[Path]:
    files = subprocess.run(["git", "ls-files", "rust/*.rs"], cwd=REPO, check=True, capture_output=True, text=True)
    return [REPO / line for line in files.stdout.split()]


def test_unsafe_code_lives_in_torch_ext_and_the_python_bridge():
    homes = (REPO / "rust/torch-ext", REPO / "rust/python")
    elsewhere = [
        str(path.relative_to(REPO))
        for path in rust_files()
        if not path.is_relative_to(homes[0]) and not path.is_relative_to(homes[1])
        if re.search(r"\bunsafe\s*(\{|fn|impl|extern)|allow\(unsafe_code\)", path.read_text())
    ]
    assert elsewhere == []


def test_every_unsafe_block_says_why_it_is_sound():
    silent = []
    for path in rust_files():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"\bunsafe\s*(\{|impl)", line.split("//")[0]):
                above = "\n".join(lines[max(0, number - 6) : number + 1])
                if "SAFETY:" not in above:
                    silent.append(f"{path.relative_to(REPO)}:{number + 1}")
    assert silent == []


def test_configuration_structs_have_no_defaults_in_code():
    schema = [path for path in rust_files() if path.is_relative_to(REPO / "rust/schema/src")]
    assert schema, "the schema is where it is looked for"
    assert [path.name for path in schema if re.search(r"serde\([^)]*\bdefault\b", path.read_text())] == []


def source(*crates: str) -> dict[str, str]:
    """Files of the crates by name below the repository, without comments and without their tests."""

    def code(text: str) -> str:
        return re.sub(r"^\s*//.*$", "", text.split("#[cfg(test)]")[0], flags=re.MULTILINE)

    folders = [f"rust/{crate}/src/" for crate in crates]
    files = (path.relative_to(REPO).as_posix() for path in rust_files())
    return {name: code((REPO / name).read_text()) for name in files if name.startswith(tuple(folders))}


def crates_but(*owners: str) -> list[str]:
    return [path.parent.name for path in REPO.glob("rust/*/Cargo.toml") if path.parent.name not in owners]


def lines_with(pattern: str, files: dict[str, str]) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{name}: {line.strip()}" for name, text in files.items() for line in text.splitlines() if found.search(line)
    ]


def test_the_engine_of_the_configuration_knows_no_key_of_ours():
    show = [program("hlrp"), "config", "show", "--format=json"]
    sections: set[str] = set()
    for experiment in ["laq_tiny", "vla_tiny", "lerobot_tiny", "rollout_tiny", "pipeline_tiny"]:
        result = subprocess.run([*show, "--raw", f"experiment={experiment}"], cwd=REPO, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        sections |= {key for key, value in json.loads(result.stdout).items() if isinstance(value, dict)}
    assert len(sections) > 10, "the tree has the sections that are looked for"
    keys = rf'"({"|".join(sorted(sections))})\b[".=]'
    assert lines_with(keys, source("config")) == []
    assert lines_with(keys, source("schema")), "the pattern finds them where they are"
    ours = r"(?i)lerobot|wandb|codebook|checkpoint|slurm|policy"
    # What a secret is called and looks like depends on the service that it is for.
    engine = {
        name: text
        for name, text in source("config").items()
        if not name.endswith(("/secret/name.rs", "/secret/forms.rs"))
    }
    assert lines_with(ours, engine) == []


def test_the_training_engine_knows_no_model_and_no_dataset_format():
    pattern = r"hlrp_(nn|laq|vla)\b|\bformats::|(?i:smolvlm|lerobot|rlds|codebook|nsvq)"
    assert lines_with(pattern, source("train")) == []
    assert lines_with(pattern, source("laq", "vla")), "the pattern finds them where they are"


@pytest.mark.parametrize(
    ("owners", "variants"),
    [
        (("vla", "schema", "golden"), r'(Model|Arch|Policy)\w*::(Expert|Pooled)\b|"(expert|pooled)"'),
        (("laq", "schema", "golden"), r'Quantizer\w*::Nsvq\b|"nsvq"|"(token|pixel|aux)_decoder"'),
        (("data", "schema"), r"\b(formats::lerobot|hlrp_data::lerobot)\b"),
    ],
)
def test_no_crate_matches_on_the_variants_of_another(owners, variants):
    assert lines_with(variants, source(*crates_but(*owners))) == []


def test_the_python_side_does_not_match_on_an_architecture():
    files = [*REPO.glob("python/**/*.py"), *REPO.glob("lerobot_policy_hlrp/**/*.py")]
    code = {path.relative_to(REPO).as_posix(): path.read_text() for path in files}
    assert lines_with(r"""[\"'](expert|pooled)[\"']""", code) == []


def test_a_range_is_checked_in_the_schema_alone():
    """What is built from a checked section does not check it again: no other crate makes a problem of a section's key by itself."""
    sections = (
        r"model|policy|data\.loader|data\.request|training\.(optimizer|scheduler|ema|gradient|checkpoint)|validation"
    )
    ranges = rf'Problem::new\(\s*"({sections})\.[a-z_.]+",\s*(format!\()?"\{{?[^"]*(below|above|range|positive|negative|finite)'
    elsewhere = {name: text for name, text in source(*crates_but("schema")).items()}
    assert [name for name, text in elsewhere.items() if re.search(ranges, text)] == []


# Every call that removes, replaces or empties a file or folder, with what it does. A new one is a decision: on a cluster nothing is deleted
# (tests/test_nothing_is_deleted.py), and nothing of ours deletes a user's file anywhere.
TAKES_AWAY = {
    "rust/track/src/fs/superseded.rs": {
        "fs::rename": "a folder that the run replaces is set aside before it is removed, where the profile removes",
        "remove_dir_all": "the one place that removes: only on a profile without cluster.keep_superseded, or what this process was filling",
    },
    "rust/track/src/fs/publish.rs": {
        "renameat_with": "publishes a folder: without replacing, or in exchange with the former one",
        "fs::rename": "the same where the file system lacks the flags, after a look that nothing is there",
    },
    "rust/track/src/fs/atomic.rs": {".persist(": "replaces a file of the run's state by its next version, in one step"},
    "rust/track/src/run/dir.rs": {"fs::rename": "sets the manifest of format 1 aside"},
    "rust/track/src/run/lock.rs": {"set_len": "the lock file names its new owner"},
    "rust/track/src/sinks/jsonl.rs": {"set_len": "takes back the part of a line that this call could not finish"},
    "rust/track/src/sinks/wandb/log.rs": {"set_len": "takes back the part of a record that this call could not finish"},
    "rust/track/src/sinks/wandb/media.rs": {"fs::write": "an image, in the folder of this session of the run"},
    "rust/track/src/sinks/wandb/session.rs": {
        "fs::copy": "the text of the session before, into the folder of a new one"
    },
    "rust/track/src/sinks/wandb/writer.rs": {
        "fs::write": "the description of the machine, in the folder of a new session"
    },
    "rust/train/src/checkpoint/writer.rs": {"fs::write": "new files in the hidden folder of an unpublished checkpoint"},
    "rust/vla/src/artifact/mod.rs": {"fs::copy": "new files in the hidden folder of an unpublished artifact"},
    "rust/data/src/cache/build.rs": {
        "fs::rename": "publishes a finished frame cache under its lock, after a look that nothing is there",
        "set_len": "gives a new, empty cache file its length",
    },
    "rust/data/src/hub/blob.rs": {
        "fs::rename": "names a content of the Hub that is whole and has its digest, under its lock; leads a snapshot's link to a changed content",
        "set_len": "drops what arrived of a content that does not have its digest",
    },
    "rust/data/src/video/opening.rs": {"set_len": "gives a new, empty file in memory its length"},
    "rust/data/src/pair_cache.rs": {"set_len": "gives a new, empty cache file its length"},
    "rust/slurm/src/claim.rs": {"fs::rename": "takes the claim of a run: onto a folder that is there, it fails"},
    "rust/slurm/src/in_job.rs": {"fs::rename": "moves what a run left that never saved a checkpoint to superseded/"},
    "rust/slurm/src/snapshot.rs": {"fs::write": "new files in the hidden folder of an unpublished copy of config/"},
    "rust/slurm/src/outcome.rs": {"fs::rename": "sets the record of a cancellation aside under a free name"},
    "scripts/develop.sh": {"rm ": "its own log, made by mktemp"},
    "scripts/stage.sh": {
        "rm ": "the copy of config/ in the package that is built",
        "mv ": "a program in the package that is built, by its new build",
    },
    "containers/import.sh": {"mv ": "publishes an imported image; with --no-clobber it replaces nothing"},
    "containers/build.sh": {
        "rm ": "its own container and its own folder, made by mktemp",
        "mv ": "publishes an archive; with --no-clobber it replaces nothing",
    },
    "containers/Containerfile.train": {"rm ": "package lists inside the image that is built"},
    "containers/Containerfile.lerobot": {"rm ": "package lists inside the image that is built"},
    "scripts/wheel.sh": {
        "rm ": "its own folder, made by mktemp",
        "mv ": "the wheel that it built, in the place of an earlier build of the same version",
    },
    "scripts/gpu-kit/kit.py": {"rmtree": "its own folder, made by mkdtemp"},
    "scripts/make_demonstrations.py": {
        ".rename(": "names the finished dataset, after a look that nothing has that name, and what a stopped command left"
    },
    "scripts/move_camera.py": {
        ".rename(": "names the finished dataset, after a look that nothing has that name",
        "rmdir": "the folder that it made beside, by mkdtemp, and has emptied",
    },
}
RUST_CALLS = r"\b(remove_file|remove_dir_all|remove_dir|unlinkat|unlink|fs::rename|renameat_with|renameat|set_len|File::create|fs::write|fs::copy)\b|(\.persist\(|truncate\(true\))"
PYTHON_CALLS = (
    r"\b(rmtree|unlink|rmdir|os\.remove|os\.rename|os\.replace|shutil\.move|removedirs)\b|(\.rename\(|\.replace\(Path)"
)
SHELL_CALLS = r"(?:^|[;&|(\s'\"])(rm |rmdir |mv |unlink |truncate |shred |find .*-delete|rsync .*--delete|git clean)"


def shell_files() -> dict[str, str]:
    """Scripts, build files and what containers run, without comments."""
    listed = subprocess.run(
        ["git", "ls-files", "scripts", "containers", "Makefile", ".ci"],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    names = [name for name in listed.stdout.split() if not name.endswith((".py", ".md"))]
    return {name: re.sub(r"^\s*#.*$", "", (REPO / name).read_text(), flags=re.MULTILINE) for name in names}


def python_files() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "python/*.py", "lerobot_policy_hlrp/*.py", "scripts/*.py"],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name: (REPO / name).read_text() for name in listed.stdout.split()}


def calls(pattern: str, files: dict[str, str]) -> set[tuple[str, str]]:
    found = re.compile(pattern, flags=re.MULTILINE)
    return {
        (name, next(filter(None, match.groups()))) for name, text in files.items() for match in found.finditer(text)
    }


def test_only_named_places_take_files_away():
    rust = calls(RUST_CALLS, source(*crates_but()))
    found = rust | calls(PYTHON_CALLS, python_files()) | calls(SHELL_CALLS, shell_files())
    allowed = {(name, call) for name, named in TAKES_AWAY.items() for call in named}
    assert sorted(found - allowed) == [], "a call that takes something away without a reason in TAKES_AWAY"
    assert sorted(allowed - found) == [], "a reason for nothing"


def test_no_job_script_deletes():
    """What the Rust code writes for a shell to run contains no command that takes something away."""
    texts = {name: "\n".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text)) for name, text in source("slurm", "cli").items()}
    assert calls(SHELL_CALLS, texts) == set()


def test_one_crate_writes_batch_scripts():
    shell = {name: (REPO / name).read_text() for name in shell_files()}
    assert lines_with("#SBATCH", source("slurm")) != []
    assert lines_with("#SBATCH", source(*crates_but("slurm")) | python_files() | shell) == []


def test_hints_are_not_part_of_an_error_message():
    messages = r'#\[error\((?:[^"\]]|"(?:[^"\\]|\\.)*")*hint:'
    assert [name for name, text in source(*crates_but()).items() if re.search(messages, text)] == []


def test_setup_does_nothing_twice():
    first, second = (subprocess.run(["scripts/setup.sh"], cwd=REPO, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_each_set_of_requirements_adds_to_the_one_before():
    """`make demo` installs nothing that only wheels or tests need."""
    script = (REPO / "scripts/setup.sh").read_text()
    declared = script[script.index("readonly KIND=") : script.index("say()")]
    packages = {}
    for kind in ["run", "demo", "wheel", "test"]:
        shell = f"set -- {kind}; {declared} printf '%s\\n' \"${{APT_PACKAGES[@]}}\""
        result = subprocess.run(["bash", "-c", shell], check=True, capture_output=True, text=True)
        packages[kind] = set(result.stdout.split())
    assert packages["run"] < packages["demo"] < packages["test"]
    assert packages["wheel"] - packages["demo"] == {"nasm", "libdav1d-dev"}
    assert packages["test"] - packages["demo"] >= {"ffmpeg", "strace", "slurm-wlm", "munge", "slurmdbd"}
    names = {kind: (REPO / f"requirements/{kind}.txt").read_text() for kind in packages}
    assert "pytest" in names["test"] and "pytest" not in names["wheel"] + names["demo"] + names["run"]
    assert "auditwheel" in names["wheel"] and "auditwheel" not in names["demo"] + names["run"]


def test_the_makefile_asks_for_what_each_target_needs():
    makefile = (REPO / "Makefile").read_text()
    targets = dict(re.findall(r"^([a-z-]+):[^\n]*\n((?:\t[^\n]*\n)+)", makefile, flags=re.MULTILINE))
    assert "setup.sh run" in targets["build"] and "setup.sh demo" in targets["develop"]
    assert "setup.sh wheel" in targets["wheel"]
    assert re.search(r"^demo: develop ", makefile, flags=re.MULTILINE), "the demo does not need what tests need"


def test_setup_refuses_a_set_of_requirements_that_does_not_exist():
    result = subprocess.run(["scripts/setup.sh", "everything"], cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 1
    assert "requirements/everything.txt" in result.stderr
    assert "hint:" in result.stderr
