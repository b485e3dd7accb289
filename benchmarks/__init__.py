"""How fast the workflow is, measured side by side with what a user would write or pick instead."""
