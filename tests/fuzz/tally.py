"""Counts the answers, and collects those that must not be."""

from collections import Counter

from tests.fuzz.traffic import UNSIGNED, Exchange, Message

_SHOWN = 20
NO_ANSWER = 0


class Tally:
    """Answers by kind and status, and digests of what was acknowledged or may have been accepted unheard."""

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0
        self.answers: Counter[tuple[str, int]] = Counter()
        self.acknowledged: Counter[bytes] = Counter()
        self.possible: Counter[bytes] = Counter()
        self.wrong = 0
        self.faults: list[str] = []

    def count_answer(self, exchange: Exchange, message: Message, status: int) -> None:
        """Count a message that had to be answered; NO_ANSWER where the connection ended instead."""
        self._count(exchange, status)
        if status == 202 and message.digest:
            self.acknowledged[message.digest] += 1
        if status not in message.expects:
            self._fault(
                f"{exchange.kind}: {status} and not {sorted(message.expects)} for {message.raw[:300]!r}"
            )

    def count_abandoned(self, exchange: Exchange, message: Message) -> None:
        """Count a message whose answer nobody waits for."""
        self._count(exchange, NO_ANSWER)
        if message.digest:
            self.possible[message.digest] += 1

    def count_tail(self, exchange: Exchange, statuses: list[int]) -> None:
        """Count a tail, and all that was answered to it."""
        for status in statuses or [NO_ANSWER]:
            self._count(exchange, status)
            if status and status not in UNSIGNED and not (status == 202 and exchange.possible_digest):
                self._fault(f"{exchange.kind}: {status} for {(exchange.tail or b'')[:300]!r}")
        self.requests -= max(0, len(statuses) - 1)  # one request, whatever it was taken for
        if exchange.possible_digest:
            self.possible[exchange.possible_digest] += 1

    def statuses(self) -> Counter[int]:
        """Return the answers by status."""
        counts: Counter[int] = Counter()
        for (_, status), count in self.answers.items():
            counts[status] += count
        return counts

    def _count(self, exchange: Exchange, status: int) -> None:
        self.requests += 1
        self.answers[exchange.kind, status] += 1

    def _fault(self, what: str) -> None:
        self.wrong += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(what)
