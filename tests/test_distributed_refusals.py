"""What several processes refuse before the first step: one of them reports it, once, and all end."""

import pytest
from conftest import DATA, one_error, run, train_laq_command
from ranks import PAIR, SHORT, end_of, policy_words, start_ranks, trainer


def test_processes_that_disagree_about_the_configuration(tmp_path):
    words = [*SHORT, f"logging.run_dir={tmp_path / 'run'}", "training.distributed.timeout_s=20"]
    other = [*words, "training.optimizer.lr=0.5"]
    codes, texts = end_of(start_ranks(trainer("hlrp-train-laq", *words), trainer("hlrp-train-laq", *other)))
    text = "".join(texts)
    assert codes == [2, 2], text
    assert text.count("error:") == 1 and "rank 1 has a different configuration than rank 0" in text, text
    assert "training.optimizer.lr = 0.5 on rank 1, training.optimizer.lr = 0.001 on rank 0" in text and "hint:" in text


def test_processes_that_read_different_data(tmp_path):
    """The folder of a dataset may differ, its content may not."""
    words = [*SHORT, f"logging.run_dir={tmp_path / 'run'}", "training.distributed.timeout_s=20"]
    other = [*words, f"data.sources.metaworld_mt5.root={DATA}/pusht_scripted"]
    codes, texts = end_of(start_ranks(trainer("hlrp-train-laq", *words), trainer("hlrp-train-laq", *other)))
    text = "".join(texts)
    assert codes == [2, 2], text
    assert text.count("error:") == 1 and "rank 1 has a different dataset (data.sources.metaworld_mt5.root)" in text, (
        text
    )
    assert "50 episodes" in text and "hint:" in text and not (tmp_path / "run").exists(), text


def test_processes_with_different_teachers(tmp_path):
    teachers = [tmp_path / "one", tmp_path / "other"]
    for seed, teacher in enumerate(teachers):
        brief = ["training.max_steps=1", "training.scheduler.type=none", f"seed={seed}", f"logging.run_dir={teacher}"]
        assert run(train_laq_command(*SHORT, *brief)).returncode == 0
    words, other = (policy_words(teacher, tmp_path / "run", 2) for teacher in teachers)
    codes, texts = end_of(start_ranks(*(trainer("hlrp-train-vla", *mine) for mine in (words, other))))
    text = "".join(texts)
    assert codes == [2, 2], text
    assert text.count("error:") == 1 and "rank 1 has a different file of weights (teacher)" in text, text


def test_an_error_of_all_processes_is_reported_once(tmp_path):
    words = [*SHORT, f"logging.run_dir={tmp_path / 'run'}"]
    for wrong in ("training.max_steps=0", "data.sources.metaworld_mt5.root=/nowhere"):
        one_error(run(train_laq_command(*words, *PAIR, wrong)), 2, [wrong.split("=")[0]])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("kept")
    one_error(run(train_laq_command(*words, *PAIR)), 2, ["logging.run_dir", "not empty"])


def test_num_processes_where_torchrun_has_started_them(tmp_path):
    words = [*SHORT, *PAIR, f"logging.run_dir={tmp_path / 'run'}"]
    codes, texts = end_of(start_ranks(*[trainer("hlrp-train-laq", *words)] * 2))
    text = "".join(texts)
    assert codes == [2, 2] and text.count("error:") == 1, text
    assert "num_processes" in text and "torchrun" in text, text


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["num_processes=0"], ["num_processes", "below 1"]),
        (["num_processes=many"], ["num_processes"]),
        (["num_processes=2", "device=cuda"], ["num_processes", "0 GPU"]),
        (["num_processes=2", "device=cuda:1"], ["device", "cuda:1", "one GPU"]),
        (["training.distributed.timeout_s=0"], ["training.distributed.timeout_s"]),
    ],
)
def test_invalid_settings(words, names):
    one_error(run(train_laq_command(*SHORT, "device=auto", *words)), 2, names)
