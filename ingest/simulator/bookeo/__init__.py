"""The simulated Bookeo.

https://www.bookeo.com/api/
"""

from ingest.simulator.bookeo.api import BookeoApi
from ingest.simulator.bookeo.webhooks import SimulatedBookeo
from ingest.simulator.vendor import SimulatedVendor

VENDOR = SimulatedVendor(SimulatedBookeo, BookeoApi)
