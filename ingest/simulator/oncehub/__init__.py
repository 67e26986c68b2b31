"""The simulated OnceHub.

https://help.oncehub.com/developers/api/
"""

from ingest.simulator.oncehub.api import OncehubApi
from ingest.simulator.oncehub.webhooks import SimulatedOncehub
from ingest.simulator.vendor import SimulatedVendor

VENDOR = SimulatedVendor(SimulatedOncehub, OncehubApi)
