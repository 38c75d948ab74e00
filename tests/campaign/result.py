"""What came of one attack, and the file that keeps it, so that a campaign goes on where it was stopped."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """attack: what was done. outcome: a few words, counted in the table. good: it is as it should be.

    faults: how many were injected. detail: of what is not good.
    """

    attack: str
    outcome: str
    good: bool = True
    faults: int = 1
    detail: str = ""


class Results:
    """Results by (kind, number), one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found = {(kept.pop("kind"), kept.pop("number")): Result(**kept) for kept in map(json.loads, lines)}

    def add(self, kind: str, number: int, result: Result) -> None:
        self.found[kind, number] = result
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "number": number} | asdict(result)) + "\n")

    def table(self) -> str:
        """A Markdown table: a row for each kind of attack, and the faults that remain below it."""
        rows: dict[tuple[str, str], list[Result]] = {}
        for (kind, _), result in sorted(self.found.items()):
            rows.setdefault((kind, result.attack.split(":")[0]), []).append(result)
        lines = ["| kind | attack | tried | faults | outcomes |", "|---|---|---|---|---|"]
        for (kind, attack), results in rows.items():
            counts = Counter(result.outcome if result.good else f"**{result.outcome}**" for result in results)
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
            lines.append(f"| {kind} | {attack} | {len(results)} | {sum(r.faults for r in results)} | {outcomes} |")
        bad = [(key, result) for key, result in sorted(self.found.items()) if not result.good]
        lines += ["", f"{len(self.found)} attacks, {len(bad)} not as they should be"]
        lines += [f"- {kind} {number}: {r.attack}: {r.outcome}: {r.detail}" for (kind, number), r in bad]
        return "\n".join(lines)
