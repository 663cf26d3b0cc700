"""What this package must never do with what strangers write, read off its source and its dependencies."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "harness").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), ROOT / "conftest.py"])
CONFINED = {f"harness/evaluation/confined/{name}.py" for name in ("judge", "program")}  # in the sandbox
OWN = "harness/lab/code.py"  # evaluates expressions that are this repository's own, to write asserts
FORBIDDEN = {
    "eval": {OWN},
    "exec": CONFINED,
    "compile": CONFINED,
    "os.system": set[str](),
    "os.popen": set[str](),
    "pickle.load": set[str](),
    "pickle.loads": set[str](),
    "joblib.load": set[str](),
    "marshal.loads": set[str](),
    "shelve.open": set[str](),
    "yaml.load": set[str](),
    "yaml.unsafe_load": set[str](),
    "yaml.full_load": set[str](),
    "tarfile.open": set[str](),
    "tempfile.mktemp": set[str](),
}
MODULES = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "telnetlib", "ftplib"}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    found = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), node) for node in found]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_source_runs_what_it_reads(path: Path):
    for called, node in calls(path):
        place = f"{name(path)}:{node.lineno}: {called}"
        assert name(path) in FORBIDDEN.get(called, {name(path)}), place
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert keywords.get("shell", "False") == "False", place
        assert keywords.get("trust_remote_code", "False") == "False", place
        if called.endswith("torch.load"):
            assert keywords.get("weights_only") == "True", place
        if called in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", "False") == "False", place
        if called.endswith("Environment"):
            assert keywords.get("autoescape") == "True", place


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_source_imports_what_unpickles(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not MODULES & {found.partition(".")[0] for found in names}, name(path)


def test_models_are_loaded_from_safetensors_only_and_without_their_code():
    for path in SOURCES:
        if not name(path).startswith("harness/"):
            continue
        for called, node in calls(path):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called.endswith("AutoModelForCausalLM.from_pretrained") and None not in keywords:
                if name(path) == "harness/experts.py":
                    assert keywords["use_safetensors"] == "True"
                assert keywords["local_files_only"] == "True", f"{name(path)}:{node.lineno}"


def test_the_templates_never_switch_escaping_off():
    for path in (ROOT / "harness" / "reporting" / "templates").iterdir():
        text = path.read_text("utf-8")
        assert "autoescape false" not in text, path.name


def test_a_pickle_is_not_opened(tmp_path: Path):
    import torch

    from harness.errors import LayerswapError
    from harness.experts import load_expert
    from tests.merging.models import tiny_model

    tiny_model("llama", True).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Evil(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LayerswapError, match="can run code when opened"):
        load_expert("math", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_state_of_training_is_named_and_runs_nothing(tmp_path: Path):
    import torch

    from harness.errors import LayerswapError
    from harness.lab.build import STAGES
    from harness.lab.training import Run

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    run = Run(torch.nn.Linear(2, 2), STAGES[0])  # type: ignore[arg-type]
    path = tmp_path / ".base.run.pt"
    run.save(path)
    whole = path.read_bytes()
    assert run.load(path)
    torch.save(Evil(), tmp_path / "evil")
    for data in (b"", b"text", whole[: len(whole) // 2], whole[:-100], (tmp_path / "evil").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(LayerswapError, match=r"\.base\.run\.pt' is damaged: remove it, and the stage base begins"):
            run.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_snapshot_of_the_hubs_cache_links_to_its_blobs_and_nowhere_else(tmp_path: Path):
    from harness.errors import LayerswapError
    from harness.files import inside

    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    blobs = tmp_path / "models--org--name" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for place in (blobs / "abc", tmp_path / "secret"):
        place.write_text("text")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "secret")
    (snapshot / "loop").symlink_to("loop")
    assert inside(snapshot, "config.json").read_text() == "text"
    for name in ("tokenizer.json", "loop", "../../blobs/abc", str(blobs / "abc"), "", "a\\..\\b", "C:\\x", "x\x1b[2J"):
        with pytest.raises(LayerswapError):
            inside(snapshot, name)
    (tmp_path / "link").symlink_to(snapshot)  # the folder itself may be one
    assert inside(tmp_path / "link", "config.json").read_text() == "text"


def test_what_a_file_calls_itself_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]):
    from harness.cli import main

    assert main(["plan", "\x1b[2J\u202elayer-swap\nerror: \ud800", "--layers", "4"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
