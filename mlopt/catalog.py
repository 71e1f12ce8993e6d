"""The one list of passes and of backends. Imports no torch and nothing of mlopt but its errors."""
