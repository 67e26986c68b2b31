"""Emulators as programs, each with what dlt uses of the real service and the emulator lacks."""
