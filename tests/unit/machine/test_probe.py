import os
import platform

import psutil
import pytest

from groundup.machine import probe
from groundup.machine.probe import cgroup_memory, cpu_name, usable_threads


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_probe_stays_within_this_machine():
    machine = probe()
    assert 1 <= machine.cores <= machine.threads <= os.cpu_count()
    assert 0 < machine.available_bytes <= machine.memory_bytes <= psutil.virtual_memory().total
    assert machine.torch_version.split(".")[0].isdigit()
    assert machine.python == platform.python_version()
    assert machine.device == ("cuda" if machine.gpus else "cpu")


@pytest.mark.parametrize(("said", "most"), [("1", 1), ("1,4", 1), ("1000", 1000), ("", 1000), ("many", 1000)])
def test_threads_follow_what_openmp_is_told(monkeypatch, said, most):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = probe().cores
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert probe().cores == min(cores, most)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_threads_follow_the_cpu_affinity(tmp_path):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_threads(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("quota, threads", [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
def test_threads_follow_a_containers_quota(tmp_path, monkeypatch, quota, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    write(tmp_path / "proc/self/cgroup", "0::/box\n")
    write(tmp_path / "sys/fs/cgroup/box/cpu.max", quota + "\n")
    assert usable_threads(tmp_path) == threads


def test_threads_follow_a_version_1_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    write(tmp_path / "proc/self/cgroup", "3:cpu,cpuacct:/\n0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert usable_threads(tmp_path) == 2


def test_memory_limit_of_the_tightest_group_leaves_out_file_cache(tmp_path):
    write(tmp_path / "proc/self/cgroup", "0::/outer/inner\n")
    outer, inner = tmp_path / "sys/fs/cgroup/outer", tmp_path / "sys/fs/cgroup/outer/inner"
    write(inner / "memory.max", "max\n")
    write(inner / "memory.current", "700\n")
    write(outer / "memory.max", "1000\n")
    write(outer / "memory.current", "700\n")
    write(outer / "memory.stat", "anon 300\ninactive_file 400\n")
    assert cgroup_memory(tmp_path) == (1000, 300)


@pytest.mark.parametrize("limit, expected", [("2000", (2000, 500)), (str(2**63 - 4096), (0, 0))])
def test_memory_limit_of_version_1(tmp_path, limit, expected):
    write(tmp_path / "proc/self/cgroup", "4:memory:/job\n1:name=systemd:/\n")
    group = tmp_path / "sys/fs/cgroup/memory/job"
    write(group / "memory.limit_in_bytes", limit)
    write(group / "memory.usage_in_bytes", "900")
    write(group / "memory.stat", "inactive_file 1\ntotal_inactive_file 400\n")
    assert cgroup_memory(tmp_path) == expected


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert cgroup_memory(tmp_path) == (0, 0)


def test_cpu_name_from_cpuinfo_and_without_it(tmp_path):
    assert cpu_name(tmp_path)
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nmodel name\t: Example CPU 9000\n")
    assert cpu_name(tmp_path) == "Example CPU 9000"
