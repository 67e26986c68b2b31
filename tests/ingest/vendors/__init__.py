"""What every vendor must do, and what each does in its own way."""
