"""Numbers in sentences."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun: `1 booking`, `1,200 bookings`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
