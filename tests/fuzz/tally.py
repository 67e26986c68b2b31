"""What came back, counted, and everything that must not be."""

from collections import Counter

from tests.fuzz.traffic import UNSIGNED, Play, Shot

_SHOWN = 20
NO_ANSWER = 0


class Tally:
    """Answers by kind and status; digests of what was acknowledged, and of what may have been kept without anybody hearing of it."""

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0
        self.answers: Counter[tuple[str, int]] = Counter()
        self.acknowledged: Counter[bytes] = Counter()
        self.perhaps: Counter[bytes] = Counter()
        self.wrong = 0
        self.faults: list[str] = []

    def answered(self, play: Play, shot: Shot, status: int) -> None:
        """A shot that had to be answered; NO_ANSWER where the connection ended instead."""
        self._count(play, status)
        if status == 202 and shot.kept:
            self.acknowledged[shot.kept] += 1
        if status not in shot.expects:
            self._fault(f"{play.kind}: {status} and not {sorted(shot.expects)} for {shot.raw[:300]!r}")

    def let_go(self, play: Play, shot: Shot) -> None:
        """A shot whose answer nobody waits for."""
        self._count(play, NO_ANSWER)
        if shot.kept:
            self.perhaps[shot.kept] += 1

    def tailed(self, play: Play, statuses: list[int]) -> None:
        """A tail, and all that was answered to it."""
        for status in statuses or [NO_ANSWER]:
            self._count(play, status)
            if status and status not in UNSIGNED and not (status == 202 and play.may_be_kept):
                self._fault(f"{play.kind}: {status} for {(play.tail or b'')[:300]!r}")
        self.requests -= max(0, len(statuses) - 1)  # one request, whatever it was taken for
        if play.may_be_kept:
            self.perhaps[play.may_be_kept] += 1

    def statuses(self) -> Counter[int]:
        """Answers by status."""
        found: Counter[int] = Counter()
        for (_, status), count in self.answers.items():
            found[status] += count
        return found

    def _count(self, play: Play, status: int) -> None:
        self.requests += 1
        self.answers[play.kind, status] += 1

    def _fault(self, what: str) -> None:
        self.wrong += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(what)
