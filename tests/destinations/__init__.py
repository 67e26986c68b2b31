"""One black box for all destinations: signed deliveries in, rows out by the destination's own client.

An emulator shows what it shows and no more: each module here says what its emulator cannot show.
"""

import pytest

pytest.register_assert_rewrite("tests.destinations.black_box", "tests.destinations.two_consumers")
