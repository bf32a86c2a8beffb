"""`hlrp analyze-laq`: every file of every analysis, and its numbers against numpy."""

import csv
import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import laq
import numpy as np
import pytest
import torch
import yaml
from conftest import DATA, MINI, one_error, program, run, train_laq_command
from hlrp_rs import Dataset
from PIL import Image

CONFIG_ERROR = 2
WITHOUT_NSVQ = [word for word in MINI if "nsvq" not in word]
SMALL = [
    "experiment=laq_token_analysis",
    "data.loader.batch_size=4",
    "data.sources.metaworld_mt5.num_val_episodes=10",
    # Half of the episodes under a second name, with other ones held out, stand for a second dataset.
    f"+data.sources.other={{root: {DATA / 'metaworld_mt5'}, cameras: {{primary: observation.image}}, state_key: observation.state,"
    f" action_key: action, episodes: {list(range(25))}, num_val_episodes: 5, tolerance_s: null}}",
    "analysis.max_batches=60",
    "analysis.samples_per_dataset=150",
    "analysis.visual_subset_size=80",
    "analysis.min_samples_per_dataset=5",
    "analysis.top_k_token_reports=2",
    "analysis.top_k_transfer=2",
    "analysis.top_k_transfer_tokens=3",
    "analysis.inspected_tokens_k=6",
    "logging.min_free_gb=0.1",
]


def analyze(*words: object):
    return run([program("hlrp"), "analyze-laq", *map(str, words)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model whose codes differ: normalised changes, convolutions that see the difference."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    words = ["model/quantizer=ema_vq", "model/encoder=conv", "model.quantizer.kmeans_start=true"]
    result = run(train_laq_command(*WITHOUT_NSVQ, *words, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir


@pytest.fixture(scope="module")
def analyzed(trained, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("analyzed") / "run"
    result = analyze(f"checkpoint={trained}", *SMALL, f"logging.run_dir={out}")
    assert result.returncode == 0, result.stderr
    assert str(out / "report.html") in result.stdout
    return out


def rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def samples(analyzed) -> list[dict]:
    """Every sample, typed."""
    found = []
    for row in rows(analyzed / "samples.csv"):
        codes = [int(value) for key, value in row.items() if key.startswith("code_")]
        actions = [float(value) for key, value in row.items() if key.startswith("action_")]
        motion = np.array([float(row["mean_dx"]), float(row["mean_dy"])])
        found.append(
            {**row, "codes": tuple(codes), "actions": actions, "motion": motion, "still": row["is_static"] == "true"}
        )
    return found


def name(codes) -> str:
    return "-".join(map(str, codes))


def content(path: Path):
    return json.loads(path.read_text())


def test_the_samples_are_those_of_the_data(samples):
    """Sums of actions over the pair, read from the dataset's own table."""
    import pandas as pd

    table = pd.concat(map(pd.read_parquet, sorted((DATA / "metaworld_mt5/data").rglob("*.parquet"))))
    by_episode = {
        episode: np.stack(part.sort_values("frame_index")["action"]) for episode, part in table.groupby("episode_index")
    }
    assert len(samples) > 100 and len({sample["codes"] for sample in samples}) > 3
    for sample in samples:
        episode, frame = int(sample["episode"]), int(sample["frame"])
        expected = by_episode[episode][frame : frame + 20].sum(0)
        assert sample["actions"] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_inspected_sequences_are_in_the_most_datasets_then_the_most_frequent(analyzed, samples):
    counts = defaultdict(Counter)
    for sample in samples:
        counts[sample["codes"]][sample["dataset"]] += 1
    expected = sorted(counts, key=lambda codes: (-len(counts[codes]), -sum(counts[codes].values()), codes))[:6]
    assert [row["sequence"] for row in rows(analyzed / "inspected_tokens.csv")] == [name(codes) for codes in expected]
    for entry, codes in zip(content(analyzed / "inspected_tokens.json"), expected, strict=True):
        assert entry["per_dataset_counts"] == counts[codes] and tuple(entry["codes"]) == codes


def test_the_checks_count(analyzed, samples):
    sequences = Counter(sample["codes"] for sample in samples)
    datasets = Counter(sample["dataset"] for sample in samples)
    checks = content(analyzed / "sanity_checks.json")
    assert checks["total_samples"] == len(samples) and checks["per_dataset_counts"] == datasets
    assert checks["num_unique_sequences"] == len(sequences)
    assert checks["num_sequences_below_10_support"] == sum(count < 10 for count in sequences.values())
    assert checks["dataset_under_min_samples"] == sorted(datasets), "fewer than 500 each"
    for dataset, rate in checks["static_rate_per_dataset"].items():
        assert rate == pytest.approx(np.mean([s["still"] for s in samples if s["dataset"] == dataset]))
    assert checks["nan_or_inf_rate"] == 0
    outputs = content(analyzed / "output_checks.json")
    assert outputs["num_pngs"] == len(list(analyzed.rglob("*.png"))) > 25 and outputs["num_empty_pngs"] == 0
    assert outputs["has_collection_stats"] and outputs["has_sanity_checks"]


def test_directions_of_a_sequence_agree_or_not(analyzed, samples):
    folder = analyzed / "analysis_2_consistency"
    angles, support = defaultdict(dict), Counter()
    by_place = defaultdict(list)
    for sample in samples:
        if not sample["still"]:
            by_place[sample["codes"], sample["dataset"]].append(sample["motion"])
    for (codes, dataset), motions in by_place.items():
        if len(motions) >= 5:
            directions = np.arctan2(*np.transpose(motions)[::-1])
            angles[codes][dataset] = np.angle(np.exp(1j * directions).mean())
            support[codes] += len(motions)
    expected = {
        name(codes): 1 - abs(np.exp(1j * np.array(list(own.values()))).mean())
        for codes, own in angles.items()
        if len(own) > 1
    }
    assert expected, "some sequences qualify"
    for row in rows(folder / "consistency.csv"):
        assert float(row["circular_variance"]) == pytest.approx(expected[row["sequence"]], abs=1e-9)
        own = angles[tuple(map(int, row["sequence"].split("-")))][row["dataset"]]
        assert float(row["angle_rad"]) == pytest.approx(own, abs=1e-9)
    metrics = content(folder / "metrics.json")
    weights = {name(codes): support[codes] for codes in angles if name(codes) in expected}
    mean = sum(expected[key] * weight for key, weight in weights.items()) / sum(weights.values())
    assert metrics["mean_weighted_angular_variance"] == pytest.approx(mean, abs=1e-9)
    assert metrics["num_qualifying_tokens"] == len(expected) and metrics["threshold"] == 5
    assert "Circular variance" in (folder / "README.md").read_text()


def test_the_table_of_datasets_counts(analyzed, samples):
    counts = Counter((sample["codes"], sample["dataset"]) for sample in samples)
    totals = Counter(sample["codes"] for sample in samples)
    found = rows(analyzed / "analysis_5_heatmap/distribution.csv")
    assert len(found) == min(50, len(totals))
    for row in found:
        codes = tuple(map(int, row["sequence"].split("-")))
        assert int(row["total"]) == totals[codes]
        assert {dataset: int(row[dataset]) for dataset in ["metaworld_mt5", "other"]} == {
            dataset: counts[codes, dataset] for dataset in ["metaworld_mt5", "other"]
        }


def test_mean_motions(analyzed, samples):
    baseline = {
        dataset: np.mean([s["motion"] for s in samples if s["dataset"] == dataset], axis=0)
        for dataset in ["metaworld_mt5", "other"]
    }
    for row in rows(analyzed / "analysis_6_compass/dataset_baseline.csv"):
        assert [float(row["mean_dx"]), float(row["mean_dy"])] == pytest.approx(baseline[row["dataset"]])

    def of(sequence: str) -> tuple[np.ndarray, np.ndarray]:
        own = [s for s in samples if name(s["codes"]) == sequence]
        return np.mean([s["motion"] for s in own], axis=0), np.mean(
            [s["motion"] - baseline[s["dataset"]] for s in own], axis=0
        )

    compass = rows(analyzed / "analysis_6_compass/compass_data.csv")
    for row in compass:
        raw, centred = of(row["sequence"])
        assert [float(row["raw_dx"]), float(row["raw_dy"])] == pytest.approx(raw)
        assert [float(row["centred_dx"]), float(row["centred_dy"])] == pytest.approx(centred)
        assert float(row["centred_angle_deg"]) == pytest.approx(np.degrees(np.arctan2(centred[1], centred[0])))
        assert float(row["raw_magnitude"]) == pytest.approx(np.hypot(*raw))
    folders = sorted((analyzed / "analysis_8_token_reports").glob("token_*"))
    assert len(folders) == 2
    for folder in folders:
        summary = content(folder / "summary.json")
        raw, centred = of(summary["sequence"])
        assert [summary["mean_shift"]["raw"]["dx"], summary["mean_shift"]["raw"]["dy"]] == pytest.approx(raw)
        assert [summary["mean_shift"]["centred"]["dx"], summary["mean_shift"]["centred"]["dy"]] == pytest.approx(
            centred
        )
        assert {path.name for path in folder.iterdir()} == {
            "summary.json", "samples.png", "latent_transfer.png", "flow_decoder.png", "mean_shift.png"
        }  # fmt: skip


def information(a, b) -> float:
    """I(A;B) from the joint table, in nats."""
    joint = np.zeros((len(set(a)), len(set(b))))
    rows_of, columns_of = ({item: number for number, item in enumerate(sorted(set(items)))} for items in (a, b))
    for x, y in zip(a, b, strict=True):
        joint[rows_of[x], columns_of[y]] += 1 / len(a)
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / outer[joint > 0])).sum())


def explained(values, groups) -> float:
    values = np.array(values)
    means = {group: values[[g == group for g in groups]].mean() for group in set(groups)}
    return (
        1 - np.mean([(value - means[group]) ** 2 for value, group in zip(values, groups, strict=True)]) / values.var()
    )


def test_what_codes_say_about_actions(analyzed, samples):
    found = content(analyzed / "action_information/action_information.json")
    assert set(found) == {"metaworld_mt5", "other"}
    for dataset, entry in found.items():
        own = [s for s in samples if s["dataset"] == dataset]
        sequences = [s["codes"] for s in own]
        assert entry["num_samples"] == len(own)
        for dim, numbers in enumerate(entry["dimensions"]):
            values = np.array([s["actions"][dim] for s in own])
            bins = (np.searchsorted(np.sort(values), values, "left") * 8 // len(values)).tolist()
            variance = explained(values, sequences)
            assert numbers["explained_variance"] == pytest.approx(variance, abs=1e-9)
            groups = len(set(sequences))
            adjusted = 1 - (1 - variance) * (len(own) - 1) / (len(own) - groups)
            assert numbers["explained_variance_adjusted"] == pytest.approx(adjusted, abs=1e-9)
            assert numbers["mutual_information"] == pytest.approx(information(sequences, bins), abs=1e-9)
            assert numbers["action_entropy"] == pytest.approx(information(bins, bins), abs=1e-9)
            half = len(own) // 2
            shuffled = sequences[half:] + sequences[:half]
            assert numbers["mutual_information_shuffled"] == pytest.approx(information(shuffled, bins), abs=1e-9)
            for slot, by_slot in enumerate(numbers["by_slot"]):
                codes = [codes[slot] for codes in sequences]
                assert by_slot["mutual_information"] == pytest.approx(information(codes, bins), abs=1e-9)
                assert by_slot["explained_variance"] == pytest.approx(explained(values, codes), abs=1e-9)


def test_decoders_with_other_codes(analyzed):
    found = content(analyzed / "decoder_dependence/decoder_dependence.json")
    assert set(found) == {"pixel", "aux"}
    for numbers in found.values():
        assert all(numbers[kind] > 0 for kind in ["own", "other", "zeroed", "no_change"])
        assert numbers["other_to_own"] == pytest.approx(numbers["other"] / numbers["own"])
        assert numbers["code_gain"] == pytest.approx((numbers["other"] - numbers["own"]) / numbers["no_change"])
        assert len({numbers["own"], numbers["other"], numbers["zeroed"]}) == 3, "the codes reach the decoder"


def test_losses_with_other_codes_are_those_of_plain_pytorch(trained, analyzed):
    """Over the same batches, with each pair's own latents, those of the pair half a batch away, and zeros."""
    found = content(analyzed / "decoder_dependence/decoder_dependence.json")
    model, _ = laq.load(trained)
    data = yaml.safe_load((analyzed / "config.yaml").read_text())["data"]
    newest = trained / "checkpoints" / (trained / "checkpoints/last").read_text().strip()
    source = data["sources"]["metaworld_mt5"]
    source["val_episodes"] = content(newest / "state.json")["sources"]["metaworld_mt5"]["held_out"]
    source["num_val_episodes"] = 0
    data["request"]["image_deltas"] = content(newest / "checkpoint.json")["task"]["pair"]["image_deltas"]
    swaps = {
        "own": lambda vectors: vectors,
        "other": lambda vectors: vectors.roll(len(vectors) // 2, 0),
        "zeroed": torch.zeros_like,
    }
    sums, num_pairs = Counter(), 0
    model.eval()
    for batch in Dataset(data, (32, 32)).validation(limit_batches=60):
        frames = batch["images"]["primary"].float() / 255
        if len(frames) < 2:
            continue
        num_pairs += len(frames)
        for kind, swap in swaps.items():
            with torch.no_grad():
                for name, loss in model(frames, swap)[1].items():
                    sums[name, kind] += loss.item() * len(frames)
    assert num_pairs > 100
    for (name, kind), total in sums.items():
        assert found[name][kind] == pytest.approx(total / num_pairs, rel=1e-4), (name, kind)


def test_the_probes_of_a_trained_model(analyzed):
    rows = {row["name"]: row for row in content(analyzed / "probes/probes.json")}
    assert {"codes", "vectors", "codes_network", "vectors_network", "random_codes", "shuffled", "frame"} <= set(rows)
    assert all(row["r2"]["low"] <= row["r2"]["value"] <= row["r2"]["high"] for row in rows.values())
    assert rows["shuffled"]["r2"]["value"] < 0.2 < rows["state_difference"]["r2"]["value"]
    assert "small network" in (analyzed / "report.html").read_text()


def test_every_analysis_leaves_its_images(analyzed):
    inspected = [row["sequence"] for row in rows(analyzed / "inspected_tokens.csv")]
    wanted = [
        "analysis_1_flow_scatter/flow_scatter_combined.png",
        "analysis_1_flow_scatter/flow_scatter_metaworld_mt5.png",
        "analysis_1_flow_scatter/flow_scatter_other.png",
        "analysis_2_consistency/consistency.png",
        f"analysis_3_examples/seq_00_{inspected[0]}.png",
        f"analysis_4_transfer/transfer_seq_{inspected[0]}.png",
        f"analysis_4_transfer/source_gt_flow_{inspected[0]}.png",
        "analysis_5_heatmap/heatmap.png",
        "analysis_7_flow_transfer/README.md",
        f"analysis_7_flow_transfer/same_token_{inspected[0]}.png",
        "analysis_7_flow_transfer/diff_tokens_other_0.png",
        "analysis_7_flow_transfer/similar_start_swap_other.png",
        "action_information/explained_variance_other.png",
    ]
    assert [file for file in wanted if not (analyzed / file).is_file()] == []
    for path in analyzed.rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert (pixels != pixels[0, 0]).any(axis=-1).mean() > 0.005, path


def test_the_report_is_one_page_with_all_sections(analyzed):
    page = (analyzed / "report.html").read_text()
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles[0] == "Samples" and len(titles) == 12
    assert page.count("<img") > 20 and 'src="data:image/png;base64,' in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == [], "nothing is outside of the page"
    record = content(analyzed / "run.json")
    assert record["sessions"][-1]["status"] == "finished"
    assert record["sessions"][-1]["inputs"][0]["role"] == "checkpoint"


@pytest.mark.slow
def test_chromium_shows_every_image_of_the_report(analyzed, tmp_path):
    browser = shutil.which("chromium")
    assert browser, "chromium is missing: run `make setup SLOW=yes`"
    # A copy that writes what the browser found into its own page.
    script = """<script>window.onerror = message => document.body.dataset.error = message;
    window.onload = () => document.body.dataset.images = [...document.images].map(i => i.complete && i.naturalWidth > 100);</script>"""
    page = (analyzed / "report.html").read_text()
    (tmp_path / "report.html").write_text(page.replace("</head>", script + "</head>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --window-size=1200,1600 --enable-logging=stderr"
    shown = run(
        [browser, *flags.split(), f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{tmp_path}/report.html"]
    )
    body = re.search("<body[^>]*>", shown.stdout).group()
    loaded = re.search('data-images="([^"]*)"', body).group(1).split(",")
    assert len(loaded) == page.count("<img") and set(loaded) == {"true"}
    assert "data-error" not in body and "CONSOLE" not in shown.stderr


def test_a_checkpoint_without_codes_is_one_clear_error(tmp_path):
    run_dir = tmp_path / "continuous"
    words = [word for word in WITHOUT_NSVQ if "max_steps" not in word]
    result = run(
        train_laq_command(*words, "model/quantizer=none", "training.max_steps=4", f"logging.run_dir={run_dir}")
    )
    assert result.returncode == 0, result.stderr
    result = analyze(f"checkpoint={run_dir}", *SMALL, f"logging.run_dir={tmp_path / 'out'}")
    one_error(result, 1, [f"{run_dir} has no codes", "hint:"])
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_a_raft_cannot_read_small_images(trained, tmp_path):
    words = ["analysis.flow.teacher=raft_small", f"analysis.flow.teacher_weights={tmp_path}/raft.safetensors"]
    result = analyze(f"checkpoint={trained}", *SMALL, *words, f"logging.run_dir={tmp_path / 'out'}")
    one_error(result, CONFIG_ERROR, ["analysis.flow.teacher", "32x32", "128", "lucas_kanade"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        ([], CONFIG_ERROR, ["checkpoint", "nothing to analyze"]),
        (["checkpoint=/nowhere"], 1, ["/nowhere"]),
        (["checkpoint=/nowhere", "analysis.num_action_bins=1"], CONFIG_ERROR, ["analysis.num_action_bins"]),
        (["checkpoint=/nowhere", "analysis.flow.teacher=raft_small"], CONFIG_ERROR, ["analysis.flow.teacher_weights"]),
    ],
)
def test_what_does_not_fit_is_one_clear_error(tmp_path, words, code, names):
    result = analyze("experiment=laq_token_analysis", *words, f"logging.run_dir={tmp_path / 'out'}")
    one_error(result, code, [*names, "hint:"])
