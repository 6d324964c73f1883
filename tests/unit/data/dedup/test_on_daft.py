"""Daft, alone and on a local Ray, keeps the very documents that the embedded engine keeps."""

import importlib.util

import pytest

from groundup.config.schema import NearDuplicateSettings
from groundup.data.dedup import find_near_duplicates, on_daft
from groundup.errors import UserError


def needs(package):
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f'{package} is not installed: pip install "groundup[daft]"')


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [pytest.param("daft", marks=needs("daft")), pytest.param("ray", marks=[needs("daft"), needs("ray")])],
)
def test_the_same_documents_stay(planted, written, tmp_path, engine):
    texts = [*planted, "", "?", *planted[:30], "天" * 3, "天" * 3]
    path = written(texts)

    def found(engine):
        settings = NearDuplicateSettings(threshold=0.7, engine=engine)
        return find_near_duplicates(path, settings, tmp_path / engine, processes=2)

    ours, theirs = found("embedded"), found(engine)
    assert len(ours.dropped) > 150
    assert theirs.kept.tolist() == ours.kept.tolist()
    assert theirs.kept_for.tolist() == ours.kept_for.tolist()
    assert theirs.clusters.read_bytes() == ours.clusters.read_bytes()


@pytest.mark.parametrize("engine", ["daft", "ray"])
def test_an_absent_package_is_told(written, tmp_path, monkeypatch, engine):
    monkeypatch.setattr(on_daft.importlib.util, "find_spec", lambda name: None if name == engine else True)
    with pytest.raises(UserError, match=f"package {engine} is not installed") as caught:
        find_near_duplicates(written(["a"]), NearDuplicateSettings(engine=engine), tmp_path / "s")
    assert "groundup[daft]" in caught.value.fix


@pytest.mark.slow
@needs("daft")
@needs("ray")
def test_a_cluster_that_is_not_there_is_told(written, tmp_path):
    settings = NearDuplicateSettings(engine="ray", ray_address="ray://127.0.0.1:1")
    with pytest.raises(UserError, match="Ray could not be reached") as caught:
        find_near_duplicates(written(["a"]), settings, tmp_path / "s")
    assert "ray_address" in caught.value.fix


def test_an_address_without_ray_is_an_error():
    with pytest.raises(ValueError, match="ray_address is only for engine: ray"):
        NearDuplicateSettings(ray_address="ray://head:10001")
