"""One call of the script: which child processes run, in which order, and with which settings."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compare import Measured
from material import Material, real_tokens
from measure import Job, progress, run_child
from work import Work, works

from groundup.errors import UserError
from groundup.hub import resolve_model
from groundup.infer.load import plain_folder
from groundup.machine import probe

CHILD_SECONDS = 900
UNTUNED: dict[str, dict[str, Any]] = {
    "trl": {"weights": "float32", "autocast": True, "attention": "sdpa", "micro": 1},
    "trainer": {"autocast": True, "attention": "sdpa", "micro": 4},
    "plain": {"autocast": True, "micro": 4},
}
"""What --quick takes instead of a search."""


@dataclass
class Session:
    """One call of the script."""

    material: Material
    threads: int
    quick: bool
    steps: int | None
    without: frozenset[str]
    """Peers that are left out."""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What tuning found, by peer and kind of work."""
    dtype: dict[str, str] = field(default_factory=dict)
    """What the first point of scaling measured to be faster: a series in two dtypes would compare nothing."""

    def job(self, work: Work, side: str, **settings: Any) -> Job:
        measured = self.steps or (1 if self.quick else work.steps)
        steps = self.material.steps_of(work, measured)
        return Job(side, work.kind, work.lora, self.material.model_of(work), steps, self.threads, settings)

    def measured(self, work: Work) -> Measured:
        """All sides of one work: ours, the peers, ours again."""
        if self.quick and (work.peers or work.name.startswith("scaling-length")):
            work = replace(work, batch=max(2, work.batch // 2))
        scaling = work.name.startswith("scaling")
        job = self.job(work, "ours", **(self.dtype if scaling else {}))
        tokens = [real_tokens(step) for step in job.steps]
        ours = [self.child(job)]
        if scaling and "error" not in ours[0]:
            self.dtype = {"dtype": ours[0]["dtype"]}
        others: dict[str, dict[str, Any]] = {}
        for peer in work.peers if "error" not in ours[0] else ():
            if peer not in self.without:
                others[peer] = self.peer(work, peer, ours[0])
        if others.keys() - {"floor"} and work.repeated:
            ours.append(self.child(replace(job, settings={"dtype": ours[0]["dtype"]})))
        return Measured(work, tokens, [record for step in job.steps for record in step], ours, others)

    def peer(self, work: Work, peer: str, ours: dict[str, Any]) -> dict[str, Any]:
        if peer == "floor":
            same = {name: ours[name] for name in ("dtype", "row_tokens", "layout")}
            return self.child(self.job(work, "floor", **same))
        side, _, how = peer.partition("-")
        settings = {"defaults": True} if how == "defaults" else self.tuned(work, side)
        return self.child(self.job(work, side, **settings))

    def tuned(self, work: Work, side: str) -> dict[str, Any]:
        """The peer's best settings for this kind of work, searched once."""
        key = f"{side} {work.tuning}"
        if key not in self.found:
            self.found[key] = {"chosen": UNTUNED[side], "tried": []}
            if not self.quick:
                result = self.child(self.job(work, "search", peer=side))
                self.found[key] = self.found[key] | result
        settings: dict[str, Any] = self.found[key]["chosen"]
        return settings

    def child(self, job: Job) -> dict[str, Any]:
        progress(f"{job.side} {job.settings or ''}")
        return run_child(job, CHILD_SECONDS)


def without_of(options: argparse.Namespace) -> frozenset[str]:
    """The peers that the call leaves out. Raises UserError for a name that is none."""
    peers = {peer for work in works() for peer in work.peers}
    named = {name for name in options.without.split(",") if name}
    if unknown := sorted(named - peers):
        raise UserError(f"There is no peer {unknown[0]!r}.", fix=f"known are {', '.join(sorted(peers))}")
    return frozenset(peers - {"floor"} if options.ours_only else named)


def open_session(options: argparse.Namespace, data: Path) -> Session:
    """The model found, and converted once where it is a GGUF file. Raises UserError."""
    cache = Path(options.cache)
    cache.mkdir(parents=True, exist_ok=True)
    model = plain_folder(resolve_model(options.model), None)
    material = Material(data, model, cache, options.max_length)
    return Session(material, probe().cores, options.quick, options.steps, without_of(options))
