"""How the product is: the facts, what they mean, and the verdict on each account."""
