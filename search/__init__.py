"""The search for parameters: Optuna says what to try, DVC runs it."""
