"""Tests, by the folders of the product; beside them those of the whole, and in support what they share."""

import os
import sys

# Tests start hundreds of processes, which without bytecode files would each compile all they import.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
