"""Breaks what runs, over and over, and shows that nothing was lost, nothing doubled, nothing older written over newer."""
