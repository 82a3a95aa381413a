"""`import workbench as wb` is cheap, and the things of a workspace are reached by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import workbench as wb
from workbench.workspace import Workspace


def test_the_loop_in_python(workspace: Workspace, tmp_path: Path) -> None:
    from workbench.pair_sets import pairs_from_dataset
    from workbench.preferences import freeze

    (tmp_path / "d.jsonl").write_bytes(b'{"prompt":"q","chosen":"g","rejected":"b"}\n')
    ws = wb.open(workspace.root)
    added = ws.add_dataset(tmp_path / "d.jsonl", note="synthetic")
    assert ws.dataset("d") == added
    assert ws.datasets() == [added]
    pairs_from_dataset(ws.files, "p", added)
    assert [pairs.name for pairs in ws.pair_sets()] == ["p"]
    freeze(ws.files, "p", "f")
    assert ws.prefs("f").info.note == ws.pairs("p").info.note == added.info.note == "synthetic"
    assert [prefs.name for prefs in ws.preference_sets()] == ["f"]


def test_no_heavy_library_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, workbench, workbench.workspace, workbench.dataset_store, workbench.pair_sets\n"
        "import workbench.preferences, workbench.preference_export, workbench.rule_annotator, workbench.hub_dataset\n"
        "heavy = {'torch', 'textual', 'duckdb', 'numpy', 'pyarrow', 'datasets', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
