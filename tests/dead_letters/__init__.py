"""Dead letters: set aside by real code that is broken for a while, shown and redriven by the real command."""
