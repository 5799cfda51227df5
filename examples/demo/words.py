# SPDX-License-Identifier: Apache-2.0
"""What is said of a run, on the terminal and in the picture. Values in, text out."""

from collections.abc import Iterable, Iterator

from examples.demo.timeline import Timeline


def title(timeline: Timeline) -> str:
    """Return the one line that the picture says."""
    failures = timeline.totals.failures
    failed = "no failed decrypt" if not failures else f"{failures:,} failed decrypts"
    return f"{len(timeline.rotations) - 1} rotations, an outage and a killed agent: {failed}"


def description(timeline: Timeline) -> str:
    """Return what the picture shows to those who do not see it."""
    sentences = []
    for version, written_at, found_by in timeline.rotations[1:]:
        times = [timeline.reached_after(pod, version) for pod in timeline.pods]
        reached = " and ".join(f"{time:.2f}" for time in times if time is not None)
        sentences.append(
            f"Version {version} was written at {written_at - timeline.began:.1f} s, became known by "
            f"{found_by}, reached the apps after {reached} s, and was used after the activation delay."
        )
    if timeline.away is not None and timeline.away.end is not None:
        sentences.append(f"The store was away for {timeline.away.end - timeline.away.start:.1f} s.")
    for pod, span in timeline.killed.items():
        if span.end is not None:
            sentences.append(f"Agent {pod} was killed and away for {span.end - span.start:.1f} s.")
    totals = timeline.totals
    sentences.append(
        f"{totals.decrypted:,} decrypts of {totals.encrypted:,} records, {totals.failures} failed."
    )
    return " ".join(sentences)


def summary(timeline: Timeline) -> Iterator[str]:
    """Yield what a reader wants to take away: how each rotation went, and the totals."""
    head = ("version", "fingerprint", "found by", "written to readable", "active, late by")
    yield "{:>7}  {:<23}  {:<10}  {:<20}  {}".format(*head)
    for version, _, found_by in timeline.rotations[1:]:
        reached = [timeline.reached_after(pod, version) for pod in timeline.pods]
        late = [timeline.late(pod, version) for pod in timeline.pods]
        yield (
            f"{version:>7}  {timeline.fingerprints.get(version, ''):<23}  {found_by:<10}  "
            f"{each(timeline.pods, reached, 1, 's', 2):<20}  {each(timeline.pods, late, 1000, 'ms', 1)}"
        )
    totals = timeline.totals
    yield ""
    yield f"{totals.encrypted:,} records encrypted, {totals.decrypted:,} decrypts, {totals.failures} failed"
    away = timeline.away
    if away is not None and away.end is not None:
        during = timeline.decrypted_by(away.end) - timeline.decrypted_by(away.start)
        yield f"{during:,.0f} of the decrypts in the {away.end - away.start:.1f} s while the store was away"


def each(pods: Iterable[str], values: Iterable[float | None], scale: float, unit: str, digits: int) -> str:
    """Return one value a pod as text: ``a 0.41 s, b 0.12 s``."""
    pairs = zip(pods, values, strict=True)
    return ", ".join(
        f"{pod} " + ("-" if value is None else f"{scale * value:.{digits}f} {unit}") for pod, value in pairs
    )
