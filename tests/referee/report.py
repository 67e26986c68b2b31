"""What the referee found in many lives: kept in a folder, so that a run can go on, and added up."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from pydantic import TypeAdapter

from ingest.warehouse.completeness import Verdict
from tests.referee.cost import Cost
from tests.referee.truth import Judgement

_SOURCES = ("ingest", "receivers", "consumers", "tests/referee")
_REPOSITORY = Path(__file__).parents[2]


@dataclass(slots=True)
class VendorResult:
    """What became of one vendor's hours, and what that cost."""

    judgement: Judgement = field(default_factory=Judgement)
    cost: Cost = field(default_factory=Cost)

    def add(self, other: "VendorResult") -> None:
        """Add what was found in another life."""
        judgement, cost = self.judgement, self.cost
        judgement.hours += other.judgement.hours
        for verdict, number in other.judgement.verdicts.items():
            judgement.verdicts[verdict] += number
        judgement.false += other.judgement.false
        judgement.waiting += other.judgement.waiting
        judgement.minutes += other.judgement.minutes
        cost.runs += other.cost.runs
        cost.failed += other.cost.failed
        cost.requests += other.cost.requests
        cost.fewest += other.cost.fewest
        cost.seconds += other.cost.seconds


@dataclass(slots=True)
class LifeResult:
    """What was found in one life, by vendor; which faults it had, and the seconds that it took."""

    seed: int
    vendors: dict[str, VendorResult]
    faults: dict[str, int]
    seconds: float


_RESULT = TypeAdapter(LifeResult)


class Results:
    """The results of lives of so many days with the code of now, in a folder of their own."""

    def __init__(self, folder: Path, days: int) -> None:
        sources = hashlib.sha256()
        for file in sorted(file for name in _SOURCES for file in (_REPOSITORY / name).rglob("*.py")):
            sources.update(file.read_bytes())
        self._folder = folder / f"{days}-days-{sources.hexdigest()[:12]}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, seed: int) -> LifeResult | None:
        """Return the result of a seed; None where it was not lived yet."""
        file = self._file(seed)
        return _RESULT.validate_json(file.read_bytes()) if file.exists() else None

    def write(self, result: LifeResult) -> None:
        """Keep a result."""
        file = self._file(result.seed)
        copy = file.with_suffix(".new")
        copy.write_bytes(_RESULT.dump_json(result))
        copy.replace(file)

    def _file(self, seed: int) -> Path:
        return self._folder / f"{seed}.json"


def describe_life(result: LifeResult) -> str:
    """Return one line about a life."""
    total = _total(result.vendors.values())
    hours, false = total.judgement.hours, len(total.judgement.false)
    return (
        f"seed {result.seed}: {hours} account-hours, {total.judgement.proven} proven, {false} false;"
        f" {total.cost.requests} requests, {total.cost.fewest} the fewest;"
        f" {sum(result.faults.values())} faults; {result.seconds:.0f} s, {hours / result.seconds:.0f} hours/s"
    )


def describe_lives(results: Iterable[LifeResult]) -> str:
    """Return a table of all vendors, and of the faults."""
    vendors: dict[str, VendorResult] = {}
    faults: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
        for vendor, of_vendor in result.vendors.items():
            vendors.setdefault(vendor, VendorResult()).add(of_vendor)
    head = ["vendor", "hours", *(verdict.value for verdict in Verdict), "proven %", "false"]
    head += ["minutes until proven: median", "99 %", "longest"]
    head += ["runs", "failed", "requests", "fewest", "ratio", "seconds"]
    rows = [head, ["---"] * len(head)]
    rows += [_row(name, vendors[name]) for name in sorted(vendors)]
    rows.append(_row("all", _total(vendors.values())))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nfaults: {', '.join(f'{number} {kind}' for kind, number in sorted(faults.items()))}"


def _total(results: Iterable[VendorResult]) -> VendorResult:
    total = VendorResult()
    for result in results:
        total.add(result)
    return total


def _row(name: str, result: VendorResult) -> list[str]:
    judgement, cost = result.judgement, result.cost
    shares = quantiles(judgement.minutes or [0, 0], n=100)
    return [
        name,
        str(judgement.hours),
        *(str(judgement.verdicts[verdict.value]) for verdict in Verdict),
        f"{100 * judgement.proven / max(1, judgement.hours):.3f}",
        str(len(judgement.false)),
        f"{shares[49]:.0f}",
        f"{shares[98]:.0f}",
        str(max(judgement.minutes, default=0)),
        str(cost.runs),
        str(cost.failed),
        str(cost.requests),
        str(cost.fewest),
        f"{cost.requests / max(1, cost.fewest):.2f}",
        f"{cost.seconds:.0f}",
    ]
