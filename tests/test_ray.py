"""`--ray`: a cluster of two nodes on this machine, one of which dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import licodec, render
from odd_jobs import Odd
from PIL import Image
from test_batch import kinds, names

from licodec.batch.run import Caps

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each; this process is connected to it."""
    from ray.cluster_utils import Cluster

    root, tests = Path(__file__).parents[1], Path(__file__).parent
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{tests}{os.pathsep}{before}"  # for the nodes' processes
    made = Cluster()
    sizes = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made.nodes = [made.add_node(**sizes), made.add_node(**sizes)]
    yield made
    ray.shutdown()
    made.shutdown()
    os.environ["PYTHONPATH"] = before


def test_jobs_outlive_processes_and_a_node(cluster, tmp_path, capsys):
    from licodec.batch.cluster import run

    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    marked = ["a", "die-once", "bad", "bug", "sleep", "die-always"]
    outcomes = run(Odd(folder=str(tmp_path)), names(*marked), cluster.address, 2, Caps(seconds=6))
    results = kinds(outcomes)
    assert set(results) == set(marked)
    assert results["a"] == results["die-once"] == "done" and results["bad"] == "is bad"
    assert "longer than 6 s" in results["sleep"] and "ZeroDivisionError" in results["bug"]
    assert "died, 2 times" in results["die-always"]

    stems = [f"nap-{number}" for number in range(40)]
    outcomes, workers = [], set()
    for outcome in run(Odd(folder=str(tmp_path)), names(*stems), cluster.address, 2, Caps()):
        outcomes.append(outcome)
        if outcome.facts.line not in workers:
            workers.add(outcome.facts.line)
            if len(workers) == 2:  # both are at work: in the middle of the next jobs a node dies
                threading.Timer(0.2, lambda: cluster.remove_node(cluster.nodes[1], allow_graceful=False)).start()
    assert sorted(kinds(outcomes)) == sorted(stems) and len(outcomes) == 40
    assert set(kinds(outcomes).values()) == {"done"} and len(workers) >= 2
    assert len({outcome.facts.line for outcome in outcomes[-5:]}) == 1
    assert "died" not in capsys.readouterr().out
    ray.shutdown()


def test_the_command_gives_what_a_local_run_gives(cluster, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(render(64, 48, number)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in/bad.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "licodec", "encode", tmp_path / "in", "-o"]
    there = subprocess.run([*command, tmp_path / "a", "--ray", cluster.address], capture_output=True, text=True)
    here = subprocess.run([*command, tmp_path / "b", "--jobs", "1", "-j", "1"], capture_output=True, text=True)
    assert there.returncode == here.returncode == 1, there.stderr
    assert "1 of 5 inputs failed" in there.stderr
    for number in range(4):
        assert (tmp_path / f"a/{number}.lic").read_bytes() == (tmp_path / f"b/{number}.lic").read_bytes()
    assert {p.suffix for p in (tmp_path / "a").iterdir()} == {".lic"}
    none = subprocess.run(
        [*command, tmp_path / "c", "--ray", "127.0.0.1:9"], capture_output=True, text=True, timeout=60
    )
    assert none.returncode == 2 and none.stderr.count("\n") == 1, none.stderr


def test_the_benchmark_outlives_a_node(cluster, tmp_path):
    """Two workers on two nodes; one node dies after the first results. The report is that of one process."""
    pytest.importorskip("bjontegaard")
    if len(cluster.worker_nodes | {cluster.head_node}) < 2:  # the test above kills one
        cluster.nodes.append(cluster.add_node(num_cpus=1, object_store_memory=80_000_000))
    cluster.wait_for_nodes()
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(render(120, 90, number)).save(tmp_path / "in" / f"{number}.png")
    words = ["-q", "2,5,8", "--against", "jpeg", "--metrics", "psnr", "--crops", "0", "-j", "1"]
    command = [sys.executable, "-m", "licodec", "bench", tmp_path / "in", *words, "-o"]
    there = subprocess.Popen(
        [*command, tmp_path / "a", "--ray", cluster.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kept = tmp_path / "a/results.jsonl"
    while not (kept.exists() and kept.read_bytes().count(b"\n") >= 3):
        assert there.poll() is None, there.communicate()
        time.sleep(0.1)
    cluster.remove_node(cluster.nodes[-1], allow_graceful=False)
    said = there.communicate(timeout=240)
    assert there.returncode == 0, said
    assert "easured 2 side by side" in said[0] and said[1].splitlines()[-1].startswith("report: "), said
    assert "died" not in said[1] and "Traceback" not in said[1]
    assert licodec("bench", tmp_path / "in", *words, "-o", tmp_path / "b").returncode == 0
    rows = [json.loads((tmp_path / f"{name}/results.json").read_text())["results"] for name in "ab"]
    same = ("image", "codec", "setting", "key", "bytes", "psnr", "threads")
    assert [[row[name] for name in same] for row in rows[0]] == [[row[name] for name in same] for row in rows[1]]
    assert len(rows[0]) == 4 * (3 + 11) and {row["side_by_side"] for row in rows[0]} == {2}
